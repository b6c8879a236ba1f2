// BodyRequest: the payload of exec_messages::StartBody.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <variant>
#include <vector>

#include "exec_messages.h"
#include "image/moved_process.h"
#include "krg/procmgr/descriptors.h"
#include "krg/procmgr/exec_spec.h"
#include "packed_bytes.h"

namespace krg {

// How a target says that it has not imported the descriptors: the origin cancels their export.
inline constexpr int kNotImported = EPROTONOSUPPORT;
// Such an answer for a person: its text has the reason.
inline Error error_of_answer(const Error& answer) {
  return answer.errno_or(0) == kNotImported ? text_error(answer.context) : answer;
}

struct BodyRequest {
  // What the body is to execute, or the process that it is.
  std::variant<ExecSpec, MovedProcess> what;
  std::vector<ExportedFd> fds;
  std::vector<NodeId> children_on;  // where it leaves or has left children

  std::string serialize() const {
    PackedWriter out;
    out.put(static_cast<uint8_t>(what.index()));
    out.put_string(std::visit([](const auto& it) { return it.serialize(); }, what));
    out.put(static_cast<uint32_t>(fds.size()));
    for (const ExportedFd& fd : fds) {
      out.put(static_cast<int32_t>(fd.number)).put(static_cast<uint8_t>(fd.close_on_exec));
      out.put_string(fd.recipe);
    }
    out.put(static_cast<uint32_t>(children_on.size()));
    for (NodeId node : children_on) out.put(node);
    return out.take();
  }
  // Error: EBADMSG.
  static Result<BodyRequest> parse(std::string_view bytes) {
    PackedReader in(bytes);
    BodyRequest request;
    const bool is_exec = in.get<uint8_t>() == 0;
    const Status parsed = is_exec ? parse_into<ExecSpec>(in.get_string(), request)
                                  : parse_into<MovedProcess>(in.get_string(), request);
    if (!parsed) return parsed.error();
    const auto count = in.get<uint32_t>();
    for (uint32_t i = 0; i < count && in.ok(); ++i) {
      const auto number = in.get<int32_t>();
      const bool close_on_exec = in.get<uint8_t>() != 0;
      request.fds.push_back({number, std::string(in.get_string()), close_on_exec});
      if (number < 0) return errno_error("descriptor number", EBADMSG);
    }
    const auto nodes = in.get<uint32_t>();
    for (uint32_t i = 0; i < nodes && in.ok(); ++i) request.children_on.push_back(in.get<NodeId>());
    if (!in.ok() || !in.at_end()) return errno_error("body request", EBADMSG);
    return request;
  }

 private:
  template <class What>
  static Status parse_into(std::string_view bytes, BodyRequest& request) {
    auto parsed = What::parse(bytes);
    if (!parsed) return parsed.error();
    request.what = std::move(*parsed);
    return {};
  }
};

}  // namespace krg
