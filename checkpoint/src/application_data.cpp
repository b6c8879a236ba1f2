// SPDX-License-Identifier: GPL-2.0-or-later
#include "application_data.h"

#include <cstring>
#include <utility>

namespace krg {

using namespace checkpoint_messages;

void ApplicationData::listen() {
  std::weak_ptr<ApplicationData> weak = weak_from_this();
  node_.messenger.on_request<KeepData>(
      [weak](NodeId, const KeepData& ask, std::string_view, Messenger::Reply reply) {
        auto self = weak.lock();
        if (!self) return;
        const uint64_t value = self->answer(ask.root, ask.sets != 0, ask.value);
        reply.ok({reinterpret_cast<const char*>(&value), sizeof value});
      });
  control_.add_command("application.data", [weak](const ControlServer::Request& request,
                                                  ControlServer::Reply reply) {
    auto self = weak.lock();
    if (!self) return;
    auto shared = std::make_shared<ControlServer::Reply>(std::move(reply));
    const bool sets = request.arguments.contains("value");
    const uint64_t value = request.arguments.value("value", uint64_t{0});
    self->applications_->find(
        request.arguments.value("pid", 0),
        [self, shared, sets, value](const Result<Applications::Application>& found) {
          if (!found) return shared->fail(found.error());
          self->ask(found->root, sets, value, [shared](const Result<uint64_t>& known) {
            known ? shared->ok({{"value", *known}}) : shared->fail(known.error());
          });
        });
  });
}

void ApplicationData::get(pid_t root, Done done) {
  ask(root, false, 0, std::move(done));
}

void ApplicationData::set(pid_t root, uint64_t value, Done done) {
  ask(root, true, value, std::move(done));
}

void ApplicationData::ask(pid_t root, bool sets, uint64_t value, Done done) {
  KeepData ask;
  ask.root = root;
  ask.sets = sets;
  ask.value = value;
  node_.messenger.request(table_.home_of(GlobalPid{root}), ask, {},
                          [done = std::move(done)](const Result<std::string>& reply) {
                            uint64_t known = 0;
                            if (!reply) return done(reply.error());
                            if (reply->size() != sizeof known)
                              return done(errno_error("application data", EPROTO));
                            std::memcpy(&known, reply->data(), sizeof known);
                            done(known);
                          });
}

uint64_t ApplicationData::answer(pid_t root, bool sets, uint64_t value) {
  const auto is_over = [](const auto& one) {
    return process_start_time(one.first) != one.second.start_time;
  };
  if (sets) {
    std::erase_if(known_, is_over);
    known_[root] = {process_start_time(root), value};
    return value;
  }
  const auto found = known_.find(root);
  return found == known_.end() || is_over(*found) ? 0 : found->second.value;
}

}  // namespace krg
