"""Devices and architectures that the simulator reckons with: public figures, and assumptions where there are none."""

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What of a device decides how fast text comes; ``source`` says where the figures are from."""

    name: str
    ram: int  # bytes that cadcpp may use
    disk_bytes_per_s: float
    latency_s: float  # of one read
    memory_bytes_per_s: float  # at which llama.cpp goes through weights for one token, as generating text shows
    flops: float  # ... and computes the rows of a prompt
    source: str


_PI_RAM, _PI_MEMORY, _PI_FLOPS = 7 * GIB, 10e9, 77e9
_PI_SOURCE = (
    "compute: llama3.1:8b (4.92 GB) at 2.17 tokens/s (github.com/geerlingguy/sbc-reviews issue 21), prompts of Tiny"
    "Llama 1.1B q8_0 at 35 tokens/s (J. Tunney, LLaMA Now Goes Faster on CPUs)"
)
_HDPARM = "hdparm on a Pi 5 (blog.jeanbruenn.info, 416 and 780 MB/s)"

DEVICES = (
    Device(
        name="Pi 5 8 GB, SD card",
        ram=_PI_RAM,
        memory_bytes_per_s=_PI_MEMORY,
        flops=_PI_FLOPS,
        disk_bytes_per_s=90e6,
        latency_s=1e-3,
        source=f"disk: the bus (SDR104) ends at 104 MB/s, good cards at about 90; {_PI_SOURCE}",
    ),
    Device(
        name="Pi 5 8 GB, NVMe",
        ram=_PI_RAM,
        memory_bytes_per_s=_PI_MEMORY,
        flops=_PI_FLOPS,
        disk_bytes_per_s=416e6,
        latency_s=1e-4,
        source=f"disk: {_HDPARM}, PCIe 2.0 x1; compute as above",
    ),
    Device(
        name="Pi 5 8 GB, NVMe gen 3",
        ram=_PI_RAM,
        memory_bytes_per_s=_PI_MEMORY,
        flops=_PI_FLOPS,
        disk_bytes_per_s=780e6,
        latency_s=1e-4,
        source=f"disk: {_HDPARM}, PCIe 3.0 x1; compute as above",
    ),
    Device(
        name="mid phone, 6 GB",
        ram=3 * GIB,
        disk_bytes_per_s=0.9e9,
        latency_s=2e-4,
        memory_bytes_per_s=10e9,
        flops=50e9,
        source="disk: UFS 2.2, about 950 MB/s in practice; compute is assumed: memory like the Pi's (LPDDR4X, 17 GB/s "
        "at most), two fast cores in place of four",
    ),
    Device(
        name="flagship phone, 12 GB",
        ram=7 * GIB,
        disk_bytes_per_s=3.5e9,
        latency_s=1e-4,
        memory_bytes_per_s=26e9,
        flops=250e9,
        source="disk: UFS 4.0, 4.2 GB/s by its makers, less 15%; compute is assumed to be like the Radxa Dragon Q8B's "
        "(github.com/geerlingguy/ai-benchmarks issue 54: TinyLlama Q4_K_M at 38.8 tokens/s, prompts at 194, of which "
        "cadcpp, without repacked weights, is taken to reach 60%)",
    ),
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers of a dense transformer, as its makers publish them."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    vocabulary: int
    tied: bool  # whether the output weights are the embeddings, in the file (Qwen2.5's have them twice)


# The catalogue's dense models that are in pairs. Its mixtures are left out: what a tree reads of one depends on its
# routing. Hybrids are in published.py. Ministral 3 8B has the defaults of transformers' Ministral3Config, 3B and 14B
# are as emergentmind.com/topics/ministral-3-series sums up the paper.
ARCHITECTURES = {
    "smollm2-135m": Architecture(30, 576, 9, 3, 64, 1536, 49152, True),
    "smollm2-1.7b": Architecture(24, 2048, 32, 32, 64, 8192, 49152, True),
    "qwen2.5-0.5b": Architecture(24, 896, 14, 2, 64, 4864, 151936, False),
    "qwen2.5-1.5b": Architecture(28, 1536, 12, 2, 128, 8960, 151936, False),
    "qwen2.5-7b": Architecture(28, 3584, 28, 4, 128, 18944, 152064, False),
    "qwen2.5-32b": Architecture(64, 5120, 40, 8, 128, 27648, 152064, False),
    "qwen3-0.6b": Architecture(28, 1024, 16, 8, 128, 3072, 151936, True),
    "qwen3-4b": Architecture(36, 2560, 32, 8, 128, 9728, 151936, True),
    "qwen3-8b": Architecture(36, 4096, 32, 8, 128, 12288, 151936, False),
    "qwen3-14b": Architecture(40, 5120, 40, 8, 128, 17408, 151936, False),
    "qwen3-32b": Architecture(64, 5120, 64, 8, 128, 25600, 151936, False),
    "llama-3.2-1b": Architecture(16, 2048, 32, 8, 64, 8192, 128256, True),
    "llama-3.2-3b": Architecture(28, 3072, 24, 8, 128, 8192, 128256, True),
    "llama-3.1-8b": Architecture(32, 4096, 32, 8, 128, 14336, 128256, False),
    "llama-3.3-70b": Architecture(80, 8192, 64, 8, 128, 28672, 128256, False),
    "ministral-3-3b": Architecture(26, 3072, 32, 8, 128, 9216, 131072, True),
    "ministral-3-8b": Architecture(34, 4096, 32, 8, 128, 14336, 131072, False),
    "ministral-3-14b": Architecture(40, 5120, 32, 8, 128, 16384, 131072, False),
    "gemma-3-270m": Architecture(18, 640, 4, 1, 256, 2048, 262144, True),
    "gemma-3-1b": Architecture(26, 1152, 4, 1, 256, 6912, 262144, True),
    "gemma-3-4b": Architecture(34, 2560, 8, 4, 256, 10240, 262208, True),
    "gemma-3-12b": Architecture(48, 3840, 16, 8, 256, 15360, 262208, True),
    "gemma-3-27b": Architecture(62, 5376, 32, 16, 128, 21504, 262208, True),
}
