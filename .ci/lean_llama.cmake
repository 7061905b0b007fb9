# For llama-cpp-python's build: llama.cpp without what cadcpp leaves alone, which is over half of the work, and with its
# RPC backend, which workers need. These are normal variables, since the cached ones are forced there and a normal one
# goes before them.
set(LLAMA_BUILD_COMMON OFF)  # the library of llama.cpp's own programs
set(LLAVA_BUILD OFF)         # images and sound
set(GGML_RPC ON)             # layers on other machines
