// What does a captured graph remember, and how does it run again without Python?
//
// While a thread captures, operators execute and are recorded: operator, host aliases of the
// arguments, results. A replay runs the same operators on the same storages. Views are not recorded
// (an alias shares its storage); storages that nobody outside holds any more are given bytes only
// between first and last use, so a graph costs its peak, not its sum.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/StorageImpl.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "../runtime/faults.h"
#include "../runtime/memory.h"
#include "call_text.h"

namespace gaudi {

struct OperatorFacts;

class Graph : public std::enable_shared_from_this<Graph> {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph();

  void capture_begin();
  void capture_end();
  // Submits the recorded work to the card's current stream; in compile-only mode nothing happens.
  void replay();
  void reset();
  // A fault of the kind "nan": the results of the replay become NaN.
  void spoil_results();

  // Every recorded operator with its arguments and results, in order; values are not to be read,
  // for memory that only the graph uses has been given back.
  using CallVisitor = std::function<void(const c10::OperatorHandle&, c10::ArrayRef<c10::IValue>,
                                         c10::ArrayRef<c10::IValue>)>;
  void for_each_call(const CallVisitor& visit) const;
  int card() const { return card_; }

  // Names of the recorded operators, in order.
  std::vector<std::string> operators() const;
  // The recorded work as a text that is equal for equal work.
  const std::string& description() const { return description_.text(); }
  int64_t workspace_bytes() const { return workspace_bytes_; }
  bool captured() const { return state_ == State::kCaptured; }

  // The graph that the calling thread captures into, or nullptr.
  static Graph* capturing() { return t_capturing; }

  // For the fallback: record one executed operator. `args` are what the CPU kernel received,
  // `results` what it left on the stack.
  void record(const c10::OperatorHandle& op, std::vector<c10::IValue> args,
              c10::ArrayRef<c10::IValue> results);
  // For the allocator: storages made during a capture hold nothing a replay may rely on.
  void note_allocation(const c10::intrusive_ptr<c10::StorageImpl>& host);
  // Whether what cannot be recorded ends the recording instead of the program, and how to end it.
  bool tolerant() const { return tolerant_; }
  void give_up(const std::string& why);

 private:
  friend class Region;
  enum class State { kEmpty, kCapturing, kCaptured };

  struct Storage {
    size_t bytes = 0;
    size_t first = 0;  // index of the first and last step that touches it
    size_t last = 0;
    int64_t references = 0;   // tensors of this graph over it
    bool born_inside = false; // made during the capture
    bool produced = false;    // the first step to touch it made it as a fresh result
    bool internal = false;    // nobody outside the graph holds it
  };

  struct Input {
    c10::StorageImpl* storage;
    int64_t references;  // tensors of this graph over it
  };

  struct Output {
    size_t result_index;      // position among the operator's returns
    int64_t list_index;       // position inside a list result, or -1
    at::Tensor captured;      // host alias of the captured result
    bool internal = false;
  };

  struct Step {
    c10::OperatorHandle op;
    std::vector<c10::IValue> args;
    std::vector<Output> fresh;
    bool run_out_variant = false;           // `op` is the out= overload and `args` hold the outputs
    std::vector<c10::StorageImpl*> allocate_before;
    std::vector<c10::StorageImpl*> free_after;
  };

  void touch(const at::Tensor& tensor, size_t step, bool produced);
  void touch_all(const c10::IValue& value, size_t step);
  void plan_memory();
  void clear();
  void run_all(runtime::Fault fault);
  // What a replay uses of memory that others may use too (graph_uses.cpp).
  void find_outside_uses();
  void note_outside_uses() const;
  void use_out_variant(Step& step) const;
  // The storages that the program must keep, since a replay reads or writes them.
  void note_inputs();
  void check_inputs() const;  // throws if the program has freed one
  std::string describe_input(const c10::StorageImpl* storage) const;
  static void run(Step& step, torch::jit::Stack& stack);
  static void give_bytes(c10::StorageImpl& storage);

  struct OutsideUse {
    c10::StorageImpl* storage;  // held by a step
    uintptr_t begin, end;
    bool write;
  };

  static thread_local Graph* t_capturing;

  State state_ = State::kEmpty;
  bool tolerant_ = false;
  bool meets_others_ = false;  // other processes wait for a collective inside
  std::string given_up_;
  int card_ = 0;
  int64_t workspace_bytes_ = 0;
  runtime::Reservation workspace_;
  std::vector<Input> inputs_;
  std::vector<Step> steps_;
  std::vector<OutsideUse> outside_;
  std::mutex running_;  // two streams cannot replay one graph at the same time
  CallText description_;
  std::unordered_map<c10::StorageImpl*, Storage> storages_;
  std::unordered_map<c10::TensorImpl*, bool> seen_;
  std::vector<c10::weak_intrusive_ptr<c10::StorageImpl>> born_;
};

// Whether a replay makes sure that nobody freed what it reads.
void set_check_freed(bool on);

// Whether `refuse_in_capture` refuses.
void set_check_capture(bool on);
bool capture_is_checked();

// Refuse what a graph cannot contain; a compiled region runs it and is not recorded. `what` names the operator or call.
void refuse_in_capture(const char* what, const char* why);

}  // namespace gaudi
