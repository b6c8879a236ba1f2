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
        if (ask.sets) self->values_.set(ask.root, ask.value);
        const uint64_t value = self->values_.of(ask.root);
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

}  // namespace krg
