"""One thread for torch: two test runs on two cores with two threads each would mostly wait for one another."""

import torch

torch.set_num_threads(1)
