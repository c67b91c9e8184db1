"""Early exits: classifiers in the middle of a network, trained with it, behind which it may end."""
