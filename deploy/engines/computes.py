"""vLLM's own operations load against this torch, on a CPU, and compute what torch does."""

import torch
from vllm.platforms import current_platform

assert current_platform.device_type == "cpu", current_platform
current_platform.import_kernels()
x, out, weight = torch.randn(4, 64), torch.empty(4, 64), torch.ones(64)
torch.ops._C.rms_norm(out, x, weight, 1e-5)
torch.testing.assert_close(out, torch.nn.functional.rms_norm(x, (64,), eps=1e-5), atol=1e-5, rtol=0)
