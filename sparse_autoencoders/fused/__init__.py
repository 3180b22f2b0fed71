"""A training step of the TopK family on the CPU: one dense product, in bfloat16 where the processor has it, then active latents only."""
