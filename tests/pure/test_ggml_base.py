"""llama.cpp's log."""

import threading

from cadcpp.gguf.ggml_base import listening, on_log


def test_a_listener_hears_its_own_thread_only() -> None:
    heard: list[str] = []
    with listening(heard.append):
        on_log(2, b"mine\n", None)
        other = threading.Thread(target=on_log, args=(2, b"of another load\n", None))
        other.start()
        other.join()
    on_log(2, b"later\n", None)
    assert heard == ["mine"]
