#include "refused_operators.h"

#include <array>

namespace gaudi {
namespace {

struct Refused {
  std::string_view prefix;  // of the name after the namespace
  std::string_view reason;
};

// The card knows dense strided tensors and PyTorch's standard operators on them. What follows has a
// CPU kernel in PyTorch, so that it would run here and fail there.
constexpr std::array kRefused{
    Refused{"mkldnn_", "it works on oneDNN's opaque CPU layout"},
    Refused{"_mkldnn_", "it works on oneDNN's opaque CPU layout"},
    Refused{"to_mkldnn", "it works on oneDNN's opaque CPU layout"},
    Refused{"_to_mkldnn", "it works on oneDNN's opaque CPU layout"},
    Refused{"fbgemm_", "it is a kernel of the CPU library FBGEMM"},
    Refused{"_nnpack_", "it is a kernel of the CPU library NNPACK"},
    Refused{"sparse_", "the card has no sparse tensors"},
    Refused{"_sparse_", "the card has no sparse tensors"},
    Refused{"to_sparse", "the card has no sparse tensors"},
    Refused{"_to_sparse", "the card has no sparse tensors"},
    Refused{"_validate_sparse", "the card has no sparse tensors"},
    Refused{"_validate_compressed_sparse", "the card has no sparse tensors"},
    Refused{"_convert_indices_from_", "the card has no sparse tensors"},
    Refused{"quantize_per_", "the card has no quantized tensor types; use fp8 or packed integers"},
    Refused{"_make_per_", "the card has no quantized tensor types; use fp8 or packed integers"},
    Refused{"_empty_affine_quantized", "the card has no quantized tensor types"},
    Refused{"_empty_per_channel_affine", "the card has no quantized tensor types"},
    Refused{"quantized_", "the card has no quantized tensor types"},
    Refused{"fake_quantize_", "it belongs to PyTorch's quantized tensor types"},
    Refused{"_fake_quantize_", "it belongs to PyTorch's quantized tensor types"},
    Refused{"_weight_int4pack_mm_for_cpu", "its packing is a layout of CPU kernels"},
    Refused{"_convert_weight_to_int4pack_for_cpu", "its packing is a layout of CPU kernels"},
    Refused{"_dyn_quant_", "its packing is a layout of CPU kernels"},
    Refused{"_flash_attention_", "it is a CUDA kernel; use scaled_dot_product_attention"},
    Refused{"_efficient_attention_", "it is a CUDA kernel; use scaled_dot_product_attention"},
};

}  // namespace

std::string refusal_reason(std::string_view name_space, std::string_view name,
                           bool has_host_kernel) {
  // Kernels of the emulated bridge: one launch on the card, written over host tensors.
  if (name_space == "gaudi_kernel") return {};
  if (name_space != "aten" && name_space != "prims") {
    return "it has no kernel for HPU; register one, or compose it from PyTorch's operators";
  }
  for (const auto& refused : kRefused) {
    if (name.substr(0, refused.prefix.size()) == refused.prefix) {
      return std::string(refused.reason);
    }
  }
  if (!has_host_kernel) return "it has no kernel for HPU";
  return {};
}

}  // namespace gaudi
