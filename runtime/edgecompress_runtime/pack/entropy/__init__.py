"""Entropy codes: which bits a symbol gets, and the compiled loops that write and read them. Codecs use them."""
