"""The way to other machines: llama.cpp's RPC protocol, spoken and relayed without llama.cpp."""
