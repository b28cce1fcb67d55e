// What does Python see of faults, of the memory's layout and of the log of allocations?
#include <torch_headers.h>

#include "robustness_bindings.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "runtime/allocation_log.h"
#include "runtime/faults.h"
#include "runtime/memory.h"
#include "runtime/stream.h"
#include "torch_device/fault_effects.h"
#include "torch_device/graph.h"

namespace py = pybind11;
using torch::wrap_pybind_function;

namespace gaudi {
namespace {

constexpr const char* kSites[] = {"launch",   "graph_replay", "compile",    "copy",
                                  "allocate", "collective",   "recipe_read"};
constexpr const char* kKinds[] = {"none", "device_error", "oom",        "hang",   "slow",
                                  "nan",  "wrong",        "rank_death", "corrupt"};

template <size_t n>
size_t position(const char* const (&names)[n], const std::string& name) {
  for (size_t i = 0; i < n; ++i) {
    if (name == names[i]) return i;
  }
  TORCH_CHECK_VALUE(false, "unknown name '", name, "'");
}

void pause(const std::function<void()>& wait) {
  if (Py_IsInitialized() != 0 && PyGILState_Check() != 0) {
    py::gil_scoped_release release;
    wait();
  } else {
    wait();
  }
}

std::atomic<int> g_frames{8};

// The calling Python code, innermost first: "file:line function", one line per frame. PyTorch calls
// operators without the interpreter's lock, so it is taken where the thread has held it before.
std::string caller() {
  const int wanted = g_frames.load();
  if (wanted == 0) return "";
  if (Py_IsInitialized() == 0 || PyGILState_GetThisThreadState() == nullptr) {
    return "a thread without Python code";
  }
  const py::gil_scoped_acquire gil;
  std::string text;
  auto frame = py::reinterpret_borrow<py::object>(
      reinterpret_cast<PyObject*>(PyEval_GetFrame()));
  for (int found = 0; frame && !frame.is_none() && found < wanted; ++found) {
    auto* raw = reinterpret_cast<PyFrameObject*>(frame.ptr());
    auto code = py::reinterpret_steal<py::object>(
        reinterpret_cast<PyObject*>(PyFrame_GetCode(raw)));
    if (!text.empty()) text += "\n";
    text += py::str(code.attr("co_filename")).cast<std::string>() + ":" +
            std::to_string(PyFrame_GetLineNumber(raw)) + " " +
            py::str(code.attr("co_name")).cast<std::string>();
    frame = py::reinterpret_steal<py::object>(
        reinterpret_cast<PyObject*>(PyFrame_GetBack(raw)));
  }
  return text.empty() ? "no Python code" : text;
}

}  // namespace

void bind_robustness(py::module_& m) {
  runtime::set_pause(&pause);
  runtime::set_caller(&caller);
  m.def("arm_fault",
        wrap_pybind_function([](const std::string& site, int64_t step, const std::string& kind,
                                double seconds, int card, std::string text) {
          runtime::arm_fault({static_cast<runtime::Site>(position(kSites, site)), step,
                              static_cast<runtime::Fault>(position(kKinds, kind)), seconds, card,
                              std::move(text)});
        }));
  m.def("disarm_faults", &runtime::disarm_faults);
  m.def("armed_faults", &runtime::armed_faults);
  m.def("fired_faults", &runtime::fired_faults);
  m.def("fault_point", wrap_pybind_function([](const std::string& site) {
          const auto kind = fault_at(
              static_cast<runtime::Site>(position(kSites, site)), runtime::current_card());
          return std::string(kind == runtime::Fault::kNone ? ""
                                                           : kKinds[static_cast<size_t>(kind)]);
        }));

  m.def("set_fragmentation", &runtime::set_fragmentation, py::arg("on"));
  m.def("set_check_freed", &set_check_freed, py::arg("on"));
  m.def("set_check_capture", &set_check_capture, py::arg("on"));

  m.def("set_leak_frames", [](int frames) { g_frames.store(frames); }, py::arg("frames"));
  m.def("log_begin", &runtime::log_begin);
  m.def("log_end", &runtime::log_end);
  m.def("last_serial", &runtime::last_serial);
  m.def("logged_allocations", [](int64_t after) {
    py::list list;
    for (const auto& a : runtime::logged_allocations(after)) {
      list.append(py::make_tuple(a.serial, a.card, a.bytes, a.where));
    }
    return list;
  });
}

}  // namespace gaudi
