// Faults, the memory's layout and the log of allocations, for the module gaudi_emulator._C.
#pragma once

#include <pybind11/pybind11.h>

namespace gaudi {

void bind_robustness(pybind11::module_& m);

}  // namespace gaudi
