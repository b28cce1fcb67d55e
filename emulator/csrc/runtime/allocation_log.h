// Which allocations made since the log was switched on are alive, and where were they made? No torch.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace gaudi::runtime {

struct LoggedAllocation {
  int64_t serial = 0;  // in the order of allocation, from 1
  int card = 0;
  int64_t bytes = 0;
  std::string where;
};

// Logs are nested: what is logged is forgotten when the last of them ends.
void log_begin();
void log_end();
// `where` says, as text, which code is running; set once.
void set_caller(std::string (*where)());

int64_t log_allocation(int card, int64_t bytes);  // the serial, or 0 when nothing is logged
void log_free(int64_t serial) noexcept;
int64_t last_serial();
std::vector<LoggedAllocation> logged_allocations(int64_t after_serial);

}  // namespace gaudi::runtime
