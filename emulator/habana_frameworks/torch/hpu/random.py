"""Random numbers of the cards; the functions of ``torch.hpu`` under their module's name."""

from habana_frameworks.torch._device import device_functions as _below
from habana_frameworks.torch._missing import refuse

__all__ = [
    "get_rng_state",
    "get_rng_state_all",
    "initial_seed",
    "manual_seed",
    "manual_seed_all",
    "seed",
    "seed_all",
    "set_rng_state",
    "set_rng_state_all",
]

get_rng_state = _below.get_rng_state
get_rng_state_all = _below.get_rng_state_all
initial_seed = _below.initial_seed
manual_seed = _below.manual_seed
manual_seed_all = _below.manual_seed_all
seed = _below.seed
seed_all = _below.seed_all
set_rng_state = _below.set_rng_state
set_rng_state_all = _below.set_rng_state_all

__getattr__ = refuse(__name__)
