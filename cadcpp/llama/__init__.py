"""The drop-in class for `llama_cpp.Llama`, and one like it for asyncio."""
