// Handles of collectives, for the module gaudi_emulator._C.
#pragma once

#include <pybind11/pybind11.h>

namespace gaudi {

void bind_distributed(pybind11::module_& m);

}  // namespace gaudi
