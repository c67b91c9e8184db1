"""A canonical model, annotated or not, as the files that devices load: `.onnx`, `.tflite`, `.pack`."""
