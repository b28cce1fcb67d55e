// What does Python see of collectives?
#include <torch_headers.h>

#include "bindings.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/pybind.h>

#include <condition_variable>
#include <mutex>

#include "collective_work.h"

namespace py = pybind11;

namespace gaudi {
namespace {

struct Handle {
  c10::intrusive_ptr<CollectiveWork> work = c10::make_intrusive<CollectiveWork>();

  // As the operators c10d::* return it.
  py::object boxed() const {
    return torch::jit::toPyObject(c10::IValue(c10::intrusive_ptr<c10d::Work>(work)));
  }
};

// Which threads of the transport are in Python? An interpreter that ends stops the threads that ask
// for its lock, in the middle of C++ code that must not be left so, and the process aborts.
class Visitors {
 public:
  bool enter() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_) ++inside_;
    return !closed_;
  }

  void leave() {
    const std::lock_guard<std::mutex> lock(mutex_);
    --inside_;
    left_.notify_all();
  }

  bool closed() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return closed_;
  }

  // Let nobody in any more, and wait until all have left.
  void close() {
    std::unique_lock<std::mutex> lock(mutex_);
    closed_ = true;
    left_.wait(lock, [this] { return inside_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable left_;
  bool closed_ = false;
  int inside_ = 0;
};

Visitors& visitors() {
  static auto* all = new Visitors;  // outlives what the end of the process destroys
  return *all;
}

// A Python function for threads of the transport; nothing happens once the interpreter ends.
class Callback {
 public:
  explicit Callback(py::function function) : function_(function.release()) {}
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;
  ~Callback() {
    in_python([this] { function_.dec_ref(); });
  }

  void call(const std::string& text) const {
    in_python([&] {
      try {
        function_(text);
      } catch (py::error_already_set& e) {
        e.discard_as_unraisable("the end of a collective");
      }
    });
  }

 private:
  template <typename F>
  static void in_python(F&& body) {
    if (!visitors().enter()) return;
    {
      const py::gil_scoped_acquire gil;
      body();
    }
    visitors().leave();
  }

  py::handle function_;
};

void follow(const std::vector<py::object>& transfers, py::function ended) {
  std::vector<WorkPointer> works;
  works.reserve(transfers.size());
  for (const auto& transfer : transfers) {
    works.push_back(WorkPointer::unsafe_reclaim_from_nonowning(transfer.cast<c10d::Work*>()));
  }
  if (visitors().closed()) {
    std::string error;
    {
      const py::gil_scoped_release release;
      error = wait_for(works);
    }
    ended(error);
    return;
  }
  auto callback = std::make_shared<Callback>(std::move(ended));
  const py::gil_scoped_release release;
  when_ended(works, [callback](const std::string& error) { callback->call(error); });
  works.clear();
  callback.reset();
}

}  // namespace

void bind_distributed(py::module_& m) {
  using no_gil = py::call_guard<py::gil_scoped_release>;
  py::class_<Handle>(m, "CollectiveWork")
      .def(py::init<>())
      .def("boxed", &Handle::boxed)
      .def("complete", [](Handle& h, int rank) { h.work->complete(rank); },
           py::arg("source_rank") = -1, no_gil())
      .def("fail", [](Handle& h, const std::string& text) { h.work->fail(text); },
           py::arg("text"), no_gil())
      .def("wait", torch::wrap_pybind_function_no_gil([](Handle& h) { h.work->wait(); }))
      .def("is_completed", [](Handle& h) { return h.work->isCompleted(); });
  m.def("when_transfers_end", torch::wrap_pybind_function(&follow), py::arg("transfers"),
        py::arg("ended"));
  m.def("close_transfers", [] { visitors().close(); }, no_gil());
}

}  // namespace gaudi
