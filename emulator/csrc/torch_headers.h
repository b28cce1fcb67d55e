// What nearly every file needs of PyTorch. setup.py precompiles it: parsing it takes longer than
// compiling what follows it. Include it first and with <>, otherwise the compiler parses it again.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StorageImpl.h>
#include <torch/library.h>
