// How does a compiled region run again, without Python and on other tensors than the first time?
//
// The first run is recorded as a graph's is. Each storage that the work touched is replaced by a slot:
// those of the inputs are bound to the tensors of the day before a run, the others get bytes from
// first to last use, and what a run returns keeps them. So nothing of an earlier run is overwritten.
#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "graph.h"

namespace gaudi {

class StreamLaunch;

class Region {
 public:
  Region() = default;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  // Record what this thread runs from now on. What a graph refuses ends the recording only. False
  // while an observer asks for every operator: then nothing is recorded, and nothing runs again.
  bool record_begin();
  // Forget what was recorded, after an error of the program.
  void record_abandon();
  // `inputs` were given to the work, `outputs` are its results. False if it cannot run again: then
  // obstacle() says why.
  bool record_end(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& outputs);
  const std::string& obstacle() const { return obstacle_; }

  // The results of a run on `inputs`; none if these differ in geometry, in type, or in which of them
  // share memory, and none while the thread captures, an observer looks or a gradient is wanted.
  std::optional<std::vector<at::Tensor>> run(const std::vector<at::Tensor>& inputs);

 private:
  using SlotPointer = c10::intrusive_ptr<c10::StorageImpl>;

  struct Input {
    c10::ScalarType type;
    std::vector<int64_t> sizes;
    std::vector<int64_t> strides;
    int64_t offset_bytes;
    size_t slot;   // inputs of one storage share a slot
    size_t first;  // the first input of that slot
    bool written = false;
  };

  struct Result {
    enum class Kind { kInput, kViewOfInput, kFresh } kind;
    size_t source;  // number of the input, or of the fresh storage
    at::Tensor geometry;
    int64_t offset_bytes = 0;  // of a view, from the start of its input
  };

  bool fail(std::string why);
  bool note_inputs(const std::vector<at::Tensor>& inputs);
  bool note_results(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& outputs);
  bool note_storages();
  SlotPointer slot_of(c10::StorageImpl* original);
  at::Tensor moved(const at::Tensor& tensor);
  c10::IValue moved(const c10::IValue& value);
  void move_steps();
  void plan_lifetimes();
  bool accepts(const std::vector<at::Tensor>& inputs) const;
  void note_uses(StreamLaunch& launch, const std::vector<at::Tensor>& inputs) const;
  void note_fresh(StreamLaunch& launch, const std::vector<at::Tensor>& made) const;
  void bind(const std::vector<at::Tensor>& inputs);
  void unbind();
  std::vector<at::Tensor> results(const std::vector<at::Tensor>& inputs);

  std::mutex mutex_;
  Graph graph_;
  int card_ = 0;
  bool ready_ = false;
  std::string obstacle_;
  std::vector<Input> inputs_;
  std::vector<Result> results_;
  std::vector<SlotPointer> input_slots_;
  std::vector<SlotPointer> fresh_slots_;  // bytes leave with the results
  std::vector<SlotPointer> inner_slots_;
  std::unordered_map<c10::StorageImpl*, SlotPointer> slots_;  // by the storage of the recording
  std::unordered_map<c10::TensorImpl*, at::Tensor> moved_;
  size_t workspace_bytes_ = 0;
};

}  // namespace gaudi
