// SPDX-License-Identifier: GPL-2.0-or-later
#include "member_loads.h"

#include <set>
#include <string>

#include "krg/checkpoint/load_pages.h"
#include "krg/procmgr/family_installer.h"
#include "payloads.h"
#include "progress_desk.h"

namespace krg {

using namespace checkpoint_messages;

struct MemberLoads::Load {
  Key key;
  LoadPages ask;
  std::string folder;
  std::set<pid_t> pids;  // that have all their pages before they run
  Messenger::Reply reply;
  VersionInfo info = {};
  SharedParts parts = {};
  Status outcome = {};
  size_t left = 0;  // members that come late, and the others
  SharedProgress progress = std::make_shared<Progress>();
  std::shared_ptr<void> report = {};

  Status open();
};

Status MemberLoads::Load::open() {
  auto store = CheckpointStore::open(folder, false);
  if (!store) return store.error();
  auto found = store->info(ask.number);
  if (!found) return found.error();
  if (found->id != ask.id) return errno_error(folder + " has been changed", ESTALE);
  auto all = store->open_parts(*found);
  if (!all) return all.error();
  info = std::move(*found);
  parts = std::make_shared<const std::vector<std::unique_ptr<PartReader>>>(std::move(*all));
  return {};
}

void MemberLoads::listen() {
  node_.messenger.on_request<LoadPages>(
      [self = shared_from_this()](NodeId from, const LoadPages& ask, std::string_view payload,
                                  Messenger::Reply reply) {
        self->load(from, ask, payload, std::move(reply));
      });
  node_.messenger.on_request<AwaitPages>(
      [self = shared_from_this()](NodeId from, const AwaitPages& ask, std::string_view,
                                  Messenger::Reply reply) {
        self->await(from, ask.load, std::move(reply));
      });
  node_.messenger.on_peer_failure([self = shared_from_this()](NodeId failed) {
    std::erase_if(self->ended_, [failed](const auto& one) { return one.first.first == failed; });
    std::erase_if(self->awaited_, [failed](const auto& one) { return one.first.first == failed; });
  });
}

void MemberLoads::load(NodeId from, const LoadPages& ask, std::string_view payload,
                       Messenger::Reply reply) {
  const auto [folder, members] = split_text(payload);
  const auto pids = split_rows<pid_t>(members);
  auto load = std::make_shared<Load>(
      Load{{from, ask.load}, ask, folder, {pids.begin(), pids.end()}, std::move(reply)});
  load->report = report_progress(node_, ask.audience, load->progress);
  node_.workers.submit([load] { load->outcome = load->open(); },
                       [self = shared_from_this(), load] { self->opened(load); });
}

void MemberLoads::opened(const LoadPtr& load) {
  load->left = 1;
  if (load->outcome && load->ask.is_lazy) begin_late(load);
  if (!load->outcome) return one_less(load, {});
  read_others(load);
}

void MemberLoads::begin_late(const LoadPtr& load) {
  const auto& members = load->parts->at(0)->contents().family.members;
  const auto family = late_->add_family(
      {load->pids.begin(), load->pids.end()}, [self = shared_from_this(), load](const Status& how) {
        if (!load->outcome) return;  // nobody asks
        auto asked = self->awaited_.extract(load->key);
        if (asked.empty()) return void(self->ended_.insert_or_assign(load->key, how));
        how ? asked.mapped().ok() : asked.mapped().fail(how.error());
      });
  for (uint32_t i = 0; i < members.size() && load->outcome; ++i) {
    if (!load->pids.contains(members[i].pid)) continue;
    UniqueFd userfaultfd = late_->take_lent(members[i].pid);
    if (!userfaultfd) continue;
    load->pids.erase(members[i].pid);
    ++load->left;
    const auto may_run = [self = shared_from_this(), load](const Status& may) {
      self->one_less(load, may);
    };
    auto added = late_->add(family, {load->info, load->parts, i, std::move(userfaultfd)}, may_run);
    if (!added) one_less(load, added);
  }
}

void MemberLoads::read_others(const LoadPtr& load) {
  auto outcome = std::make_shared<Status>();
  node_.workers.submit(
      [load, outcome] {
        *outcome = load_pages(
            load->info, *load->parts, [&](pid_t pid) { return load->pids.contains(pid); },
            FamilyInstaller::write, load->progress);
      },
      [self = shared_from_this(), load, outcome] { self->one_less(load, *outcome); });
}

void MemberLoads::one_less(const LoadPtr& load, const Status& loaded) {
  if (!loaded && load->outcome) load->outcome = loaded;
  if (--load->left > 0) return;
  load->report.reset();
  load->outcome ? load->reply.ok() : load->reply.fail(load->outcome.error());
}

void MemberLoads::await(NodeId from, uint64_t number, Messenger::Reply reply) {
  const Key key{from, number};
  auto ended = ended_.extract(key);
  if (ended.empty()) return void(awaited_.insert_or_assign(key, std::move(reply)));
  ended.mapped() ? reply.ok() : reply.fail(ended.mapped().error());
}

}  // namespace krg
