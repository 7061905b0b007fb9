"""The drop-in class for `llama_cpp.Llama`, and its asynchronous twin."""
