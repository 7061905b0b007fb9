"""What speaks to llama.cpp: its models, contexts, batches and samplers."""
