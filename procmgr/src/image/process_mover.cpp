// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/process_mover.h"

#include <algorithm>
#include <csignal>

#include "body_request.h"
#include "image/first_pages.h"
#include "image/image_capture.h"
#include "image/process_copy.h"
#include "image/process_mover_impl.h"
#include "in_worker.h"
#include "krg/procmgr/job_namespaces.h"
#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "native_children.h"
#include "process_spec.h"
#include "process_status.h"

namespace krg {
namespace {

using namespace exec_messages;

// So much memory goes along with the request to install; of more only what it needs first.
constexpr uint64_t kMostContents = 512u << 10;

// Whose mappings are kept.
constexpr size_t kMostForkers = 256;

// How often it is looked whether the pages of a process that is to move again have come.
constexpr std::chrono::milliseconds kPagesTick{10};
// How often, so far apart, it is asked whether children that it has left have been waited for.
constexpr int kReleaseTries = 50;

// Why it cannot move now, but may soon.
constexpr int kHasChildrenElsewhere = ECHILD, kUnknownWait = EAGAIN;
constexpr int kWaitTries = 5;

// Whose kernel would know of its own children, and its own locks, only.
Error not_home() {
  return errno_error("it has children on other nodes than its home, or locks by fcntl(2)",
                     kHasChildrenElsewhere);
}
Status as_refusal(Status moved) {
  if (moved || moved.error().errno_or(0) != kHasChildrenElsewhere) return moved;
  return errno_error(moved.error().context, ENOTSUP);
}

}  // namespace

// ---- taking the process down ----

Status ProcessMover::Impl::capture(Move& move) {
  if (auto settled = settle_children(move); !settled) return settled;
  // What krgd puts into it to take the image stays for what follows, and does not go along.
  auto pages = move.fork ? Result<std::vector<PageRange>>(move.fork->take_pages())
                         : content_ranges(move.pid);
  if (!pages) return pages.error();
  const bool is_child = move.which == WhichFds::kForked;
  auto memory = move.fork ? Result<ImageMemory>(move.fork->take_memory())
                          : read_image_memory(
                                move.pid, is_child ? forker_of(move.pid).mappings : move.mappings);
  if (!memory) return memory.error();
  if (is_child)  // fork(2) locks nothing; these may be what the kernel says of its forker
    for (ImageMapping& mapping : memory->mappings) mapping.advice &= ~ImageMapping::kLocked;
  auto image = capture_image(*move.process, std::move(*memory), node.session_mount_ns);
  if (!image) return image.error();
  log_trace("image", "process {}: captured", move.pid);
  if (auto named = name_shared_memory(*image); !named) return named;
  if (parts.sleeps) parts.sleeps->take_out(*move.process, *image);
  if (!move.waits.shorten(*move.process, *image) && !move.may_interrupt)
    return errno_error("it goes on with a wait", kUnknownWait);
  move.signals = image->pending;
  const auto& of_main = image->threads.front().pending;
  move.signals.insert(move.signals.end(), of_main.begin(), of_main.end());
  move.moved.image = std::move(*image);
  move.moved.pages = std::move(*pages);
  if (total_bytes(move.moved.pages) > kMostContents) {
    move.moved.late_pages = std::move(move.moved.pages);
    move.moved.pages = take_first_pages(move.moved.late_pages, move.moved.image, kMostContents);
  }
  if (auto read = read_contents(move); !read) return read;
  if (move.moved.late_pages.empty()) return {};
  if (!parts.pages) return errno_error("it has too much memory", ENOTSUP);
  move.page_move = move.moved.move = parts.pages->number_move();
  // A copy at its home could not be given up any more.
  const bool asks_first = !parts.table.find_body(move.pid);
  return asks_first ? Status() : serve_late_pages(move, move.moved.late_pages);
}

Status ProcessMover::Impl::check_children(const ProcessTable::Body& body, NodeId target) {
  const auto& nodes = body.children_on;
  if (body.origin == target) {
    const bool has_others =
        std::any_of(nodes.begin(), nodes.end(), [&](NodeId node) { return node != target; });
    return has_others ? not_home() : Status();
  }
  return std::count(nodes.begin(), nodes.end(), target) == 0
             ? Status()
             : errno_error("it has left children on that node, or locks", ENOTSUP);
}

// They stay where they are.
Status ProcessMover::Impl::settle_children(Move& move) {
  if (const ProcessTable::Body* body = parts.table.find_body(move.pid)) {
    move.children_on = body->children_on;
    if (auto may = check_children(*body, move.target); !may) return may;
    if (body->origin == move.target && has_child(move.pid)) return not_home();
  }
  if (has_child(move.pid)) move.children_on.push_back(node.self);
  return {};
}

// A guest's locks by fcntl(2) of files of this node stay, with a guardian, as children do.
Status ProcessMover::Impl::settle_locks(Move& move) {
  const ProcessTable::Body* body = parts.table.find_body(move.pid);
  if (!body || !holds_locks(move)) return {};
  if (body->origin == move.target)
    return errno_error("it has a lock by fcntl(2) of a file of another node than its home",
                       ENOTSUP);
  if (std::count(move.children_on.begin(), move.children_on.end(), node.self) == 0)
    move.children_on.push_back(node.self);
  return {};
}

// By what every node calls it.
Status ProcessMover::Impl::name_shared_memory(ProcessImage& image) const {
  for (ImageMapping& mapping : image.mappings) {
    if (mapping.kind != ImageMapping::Kind::kShared) continue;
    mapping.shared_file = parts.shared ? parts.shared->file_of_memory(mapping.shared_file) : 0;
    if (mapping.shared_file == 0) return cannot_move("memory of other nodes");
  }
  return {};
}

Status ProcessMover::Impl::read_contents(Move& move) {
  move.moved.contents.resize(total_bytes(move.moved.pages));
  std::span<char> rest(move.moved.contents);
  for (const PageRange& range : move.moved.pages) {
    const auto into = rest.first(range.bytes);
    auto read =
        move.fork ? move.fork->read(range.start, into) : move.process->read(range.start, into);
    if (!read) return read;
    rest = rest.subspan(range.bytes);
  }
  return {};
}

Status ProcessMover::Impl::serve_late_pages(Move& move, std::vector<PageRange> pages) {
  auto task = move.process->clone_page_source();
  if (!task) return task.error();
  return serve_task(move, *task, std::move(pages));
}

Status ProcessMover::Impl::serve_task(Move& move, pid_t task, std::vector<PageRange> pages) {
  parts.table.hide(task);
  auto served = parts.pages->serve(
      move.page_move, move.target, task, std::move(pages),
      [self = shared_from_this(), task](Status) { self->end_page_source(task); });
  served ? void(move.page_source = task) : end_page_source(task);
  return served;
}

// The child may run, and end, before there is who has its pages.
void ProcessMover::Impl::copy_late_pages(const MovePtr& move, const std::vector<PageRange>& pages) {
  parts.pages->expect(move->page_move, move->target);
  move->fork->copy_memory([self = shared_from_this(), move, pages](Result<pid_t> task) {
    log_trace("image", "process {}: its forker's memory is copied", move->pid);
    const bool is_off = !move->done && !move->may_run;
    if (task && is_off) return self->end_page_source(*task);
    move->served = task ? self->serve_task(*move, *task, pages) : Status(task.error());
    if (move->served) return;
    log_error("image", "process {}: its pages: {}", move->pid, move->served.error().message());
    self->parts.pages->abandon(move->page_move);
  });
}

void ProcessMover::Impl::end_page_source(pid_t task) {
  kill(task, SIGKILL);
  parts.table.forget_hidden(task);
}

void ProcessMover::Impl::abandon_late_pages(Move& move) {
  if (move.fork || move.page_source != 0) parts.pages->abandon(move.page_move);
  if (move.page_source != 0) end_page_source(std::exchange(move.page_source, 0));
}

void ProcessMover::Impl::export_descriptors(MovePtr move) {
  parts.descriptors.export_fds(
      move->process->pid(), move->which,
      [self = shared_from_this(), move](Result<std::vector<ExportedFd>> fds) {
        if (!fds) return self->end(*move, fds.error());
        move->fds = std::move(*fds);
        if (auto settled = self->settle_locks(*move); !settled) {
          self->parts.descriptors.cancel_export(move->fds);
          return self->end(*move, settled);
        }
        self->ask_target(move);
      });
}

// ---- the target ----

Result<StartBody> ProcessMover::Impl::describe(const Move& move) {
  StartBody ask;
  ask.pid = move.process->pid();
  const ProcessTable::Body* body = parts.table.find_body(ask.pid);
  ask.origin = body ? body->origin : node.self;
  auto capabilities = parts.capabilities.of(ask.pid);
  if (!capabilities) return capabilities.error();
  ask.capabilities = *capabilities;
  auto place = process_identity(parts.table, ask.pid);
  if (!place) return place.error();
  ask.group = place->group;
  ask.session = place->session;
  if (auto job = node.jobs ? node.jobs->job_of(ask.pid) : std::nullopt) {
    ask.has_job = 1;
    ask.job = job->value;
  }
  return ask;
}

void ProcessMover::Impl::ask_target(MovePtr move) {
  auto ask = describe(*move);
  if (!ask) {
    parts.descriptors.cancel_export(move->fds);
    return end(*move, ask.error());
  }
  log_trace("image", "process {}: asks n{}", move->pid, move->target.value);
  const std::vector<PageRange> late_pages = move->moved.late_pages;
  BodyRequest request;
  request.what = std::move(move->moved);
  request.fds = move->fds;
  request.children_on = move->children_on;
  const std::string payload = request.serialize();
  std::string_view rest = payload;
  for (BodyPart part; rest.size() > BodyPart::kMostBytes;
       rest.remove_prefix(BodyPart::kMostBytes)) {
    part.pid = move->pid;
    if (!node.messenger.send(move->target, part, rest.substr(0, BodyPart::kMostBytes)))
      break;  // its node has failed: the request will say so
  }
  node.messenger.request(move->target, *ask, rest,
                         [self = shared_from_this(), move](Result<std::string> reply) {
                           self->on_target_answer(move, reply);
                         });
  // While the target makes the process.
  if (!late_pages.empty() && move->fork)
    copy_late_pages(move, late_pages);
  else if (!late_pages.empty() && move->page_source == 0)
    move->served = serve_late_pages(*move, late_pages);
  log_trace("image", "process {}: its later pages are served", move->pid);
  if (!parts.table.find_body(move->pid)) prepare_shadow(*move);
}

void ProcessMover::Impl::prepare_shadow(Move& move) {
  auto prepared = parts.shadows.prepare_shadow(*move.process);
  if (prepared)
    move.shadow = std::move(*prepared);
  else
    move.has_shadow = prepared.error();
  log_trace("image", "process {}: could be a shadow", move.pid);
}

void ProcessMover::Impl::on_target_answer(const MovePtr& move, const Result<std::string>& reply) {
  log_trace("image", "process {}: answered", move->pid);
  for (const Status& done : {move->served, move->has_shadow}) {
    if (!reply || done) continue;
    drop_body(*move);
    return end(*move, done);
  }
  if (reply)
    return parts.table.find_body(move->process->pid()) ? leave_origin(move) : leave_shadow(move);
  const int number = reply.error().errno_or(EIO);
  if (number == kNotImported || number == EHOSTDOWN) parts.descriptors.cancel_export(move->fds);
  end(*move, error_of_answer(reply.error()));
}

// ---- before it stands still ----

// One whose pages are still to come would have krgd wait for itself, and cannot be captured whole.
void ProcessMover::Impl::when_complete(pid_t pid, std::function<void()> done) {
  if (!parts.pages || !parts.pages->is_receiving(pid)) return done();
  run_after(node.loop, kPagesTick,
            [self = shared_from_this(), pid, done] { self->when_complete(pid, done); });
}

// Where children that it left have all been waited for, it may go again.
void ProcessMover::Impl::release_guardians(pid_t pid, std::vector<NodeId> nodes,
                                           std::function<void()> done) {
  if (nodes.empty()) return done();
  const NodeId asked = nodes.back();
  nodes.pop_back();
  ReleaseGuardian release;
  release.pid = pid;
  node.messenger.request(
      asked, release, {},
      [self = shared_from_this(), pid, nodes, asked, done](Result<std::string> released) {
        ProcessTable::Body* body = self->parts.table.find_body(pid);
        if (body && (released || released.error().errno_or(0) == EHOSTDOWN))
          std::erase(body->children_on, asked);
        self->release_guardians(pid, nodes, done);
      });
}

// Children that are about to end are waited for a while.
void ProcessMover::Impl::release_and_freeze(const Going& going) {
  const ProcessTable::Body* body = parts.table.find_body(going.pid);
  std::vector<NodeId> guardians = body ? body->children_on : std::vector<NodeId>();
  if (body) std::erase(guardians, body->origin);
  release_guardians(going.pid, guardians, [self = shared_from_this(), going] {
    const ProcessTable::Body* still = self->parts.table.find_body(going.pid);
    const Status may = still ? check_children(*still, going.target) : Status();
    const auto end_or_retry = [self, going](Status moved) {
      const int error = moved ? 0 : moved.error().errno_or(0);
      const int most = error == kHasChildrenElsewhere ? kReleaseTries
                       : error == kUnknownWait        ? kWaitTries
                                                      : 0;
      if (going.tried >= most) return going.done(as_refusal(moved));
      Going again = going;
      ++again.tried;
      run_after(self->node.loop, kPagesTick, [self, again] { self->release_and_freeze(again); });
    };
    may ? self->read_and_freeze(going, end_or_retry) : end_or_retry(may);
  });
}

void ProcessMover::Impl::read_and_freeze(const Going& going, std::function<void(Status)> done) {
  using Read = std::pair<Result<MappingTexts>, WaitTimes>;
  in_worker(
      node.workers,
      [pid = going.pid] {
        auto mappings = MappingTexts::read_smaps(pid);
        return Read{std::move(mappings), WaitTimes::of(pid)};
      },
      [self = shared_from_this(), going, done = std::move(done)](Read read) {
        if (!read.first) return done(read.first.error());
        self->freeze(going, std::move(*read.first), std::move(read.second), done);
      });
}

void ProcessMover::Impl::freeze(const Going& going, MappingTexts mappings, WaitTimes waits,
                                std::function<void(Status)> done) {
  FrozenProcess::freeze(
      node.loop, *node.children, going.pid,
      [self = shared_from_this(), going, mappings = std::move(mappings), waits = std::move(waits),
       done = std::move(done)](Result<std::shared_ptr<FrozenProcess>> frozen) {
        if (!frozen) return done(frozen.error());
        const ProcessTable::Body* body = self->parts.table.find_body(going.pid);
        if (body && body->origin == going.target && has_child(going.pid)) return done(not_home());
        self->begin(Move{.claim = going.claim,
                         .process = std::move(*frozen),
                         .which = WhichFds::kAll,
                         .pid = going.pid,
                         .target = going.target,
                         .done = done,
                         .mappings = mappings,
                         .waits = waits,
                         .may_interrupt = going.tried >= kWaitTries});
      });
}

// Its parent's memory is the child's.
ProcessMover::Impl::Forker& ProcessMover::Impl::forker_of(pid_t child) {
  auto place = read_exec_caller(child);
  return forker(place ? place->parent : 0);
}

ProcessMover::Impl::Forker& ProcessMover::Impl::forker(pid_t parent) {
  if (forkers.size() > kMostForkers) forkers.clear();
  Forker& known = forkers[parent];
  const uint64_t start_time = process_start_time(parent);
  if (known.start_time != start_time) known = {start_time, {}};
  return known;
}

void ProcessMover::Impl::begin(Move begun) {
  auto move = std::make_shared<Move>(std::move(begun));
  ++moving;
  log_trace("image", "process {} goes to n{}: frozen", move->pid, move->target.value);
  if (auto captured = capture(*move); !captured) return end(*move, captured);
  log_trace("image", "process {}: {} bytes at once, {} later", move->pid,
            move->moved.contents.size(), total_bytes(move->moved.late_pages));
  export_descriptors(move);
}

void ProcessMover::Impl::clone(FrozenProcess& original, NodeId target,
                               std::function<void(Result<pid_t>)> done) {
  auto sets = parts.capabilities.of(original.pid());
  if (!sets) return done(sets.error());
  auto copied = copy_process(original, node.session_mount_ns);
  if (!copied) return done(copied.error());
  const std::shared_ptr<FrozenProcess> copy = std::move(*copied);
  const pid_t pid = copy->pid();
  const Status adopted = parts.capabilities.adopt(pid, *sets);
  auto claim = adopted ? parts.table.claim(pid) : adopted.error();
  if (!claim) {
    copy->kill();
    return done(claim.error());
  }
  if (target == node.self) return done(pid);  // and goes on
  begin({.claim = std::make_shared<ProcessTable::Claim>(std::move(*claim)),
         .process = copy,
         .which = WhichFds::kAll,
         .pid = pid,
         .target = target,
         .done = [copy, pid, done](Status moved) {
           if (moved) return done(pid);
           copy->kill();
           done(moved.error());
         }});
}

void ProcessMover::Impl::end(Move& move, Status how) {
  --moving;
  log_trace("image", "process {}: moved", move.pid);
  if (!how) abandon_late_pages(move);
  if (!how) parts.descriptors.resume_sockets(move.fds);
  move.shadow = nullptr;
  move.process = nullptr;  // goes on here, unless it has become a shadow
  if (move.fork && !how && !move.may_run) move.fork->call_again();
  move.fork = nullptr;
  std::exchange(move.done, nullptr)(std::move(how));
}

// ---- the interface ----

ProcessMover::ProcessMover(NodeContext& node, const ExecPlacer::Parts& parts)
    : impl_(std::make_shared<Impl>(node, parts)) {}
ProcessMover::~ProcessMover() = default;

size_t ProcessMover::moving() const {
  return impl_->moving;
}

void ProcessMover::move(std::shared_ptr<FrozenProcess> process, NodeId target, WhichFds which,
                        std::function<void(Status)> done) {
  auto claim = impl_->parts.table.claim(process->pid());
  if (!claim) return done(claim.error());
  const pid_t pid = process->pid();
  impl_->begin({.claim = std::make_shared<ProcessTable::Claim>(std::move(*claim)),
                .process = std::move(process),
                .which = which,
                .pid = pid,
                .target = target,
                .done = std::move(done)});
}

void ProcessMover::move(std::shared_ptr<LargeFork> fork, NodeId target,
                        std::function<void(Status)> done) {
  const pid_t pid = fork->child()->pid();
  auto claim = impl_->parts.table.claim(pid);
  if (!claim) {
    fork->call_again();
    return done(claim.error());
  }
  impl_->begin({.claim = std::make_shared<ProcessTable::Claim>(std::move(*claim)),
                .process = fork->child(),
                .which = WhichFds::kForked,
                .pid = pid,
                .target = target,
                .done = std::move(done),
                .fork = std::move(fork)});
}

MappingTexts& ProcessMover::mappings_of_forker(pid_t forker) {
  return impl_->forker(forker).mappings;
}

void ProcessMover::freeze_and_move(pid_t pid, NodeId target, std::function<void(Status)> done) {
  auto claimed = impl_->parts.table.claim(pid);
  if (!claimed) return done(claimed.error());
  auto claim = std::make_shared<ProcessTable::Claim>(std::move(*claimed));
  impl_->when_complete(pid, [impl = impl_, claim, pid, target, done] {
    const ProcessTable::Body* body = impl->parts.table.find_body(pid);
    // It cannot take the child that it waits for home: it goes when that has ended.
    body && body->origin != target ? claim->end_waits() : claim->end_waits_but_for_children();
    impl->release_and_freeze({claim, pid, target, done});
  });
}

void ProcessMover::clone(pid_t pid, NodeId target, std::function<void(Result<pid_t>)> done) {
  auto claimed = impl_->parts.table.claim(pid);
  if (!claimed) return done(claimed.error());
  auto claim = std::make_shared<ProcessTable::Claim>(std::move(*claimed));
  impl_->when_complete(pid, [impl = impl_, claim, pid, target, done] {
    claim->end_waits_but_for_children();
    FrozenProcess::freeze(
        impl->node.loop, *impl->node.children, pid,
        [impl, claim, target, done](Result<std::shared_ptr<FrozenProcess>> frozen) {
          frozen ? impl->clone(**frozen, target, done) : done(frozen.error());
        });
  });
}

}  // namespace krg
