// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/proc_view.h"

#include <fmt/format.h>
#include <unistd.h>

#include "cpu_tree.h"
#include "proc_tree.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr const char* kCpuDirectory = "/sys/devices/system/cpu";

}  // namespace

struct ProcView::Impl {
  Impl(NodeContext& node, SessionFs& session_fs, ProcessTable& table,
       CapabilityTable& capability_table, const NodeResources& resources, const PlainFiles& proc,
       const PlainFiles& cpus)
      : fs(session_fs),
        capabilities(capability_table),
        plain_proc(proc),
        facts(node, cpus, resources.own_processors()),
        identities(node, table, proc, facts.own().boot_epoch_ns),
        files(node, table, identities, proc, facts.own().boot_epoch_ns),
        proc_tree(node, table, identities, files, facts, proc, node.paths.session_root + "/proc",
                  [this](pid_t tid) { return sees_local(tid); }),
        cpu_tree(node, facts, cpus, [this](pid_t tid) { return sees_local(tid); }) {}

  // The capability belongs to the process, not to the thread that happens to read.
  bool sees_local(pid_t tid) const {
    auto sets = capabilities.of(thread_group_of(plain_proc, tid));
    return sets && sets->effective.has(Capability::kSeeLocalProcStat);
  }

  SessionFs& fs;
  CapabilityTable& capabilities;
  PlainFiles plain_proc;
  ClusterFacts facts;
  PidIdentities identities;
  NodeFiles files;
  ProcTree proc_tree;
  CpuTree cpu_tree;
};

Result<std::unique_ptr<ProcView>> ProcView::create(NodeContext& node, SessionFs& fs,
                                                   ProcessTable& table,
                                                   CapabilityTable& capabilities,
                                                   const NodeResources& resources) {
  auto proc = PlainFiles::open(node.paths.session_root + "/proc");
  if (!proc) return proc.error();
  auto cpus = PlainFiles::open(kCpuDirectory);
  if (!cpus) return cpus.error();
  auto impl = std::make_unique<Impl>(node, fs, table, capabilities, resources, *proc, *cpus);
  fs.add_tree("proc", impl->proc_tree);
  fs.add_tree("cpu", impl->cpu_tree);
  return std::unique_ptr<ProcView>(new ProcView(std::move(impl)));
}

void ProcView::set_ipc_text(ProcTree::IpcText text) {
  impl_->proc_tree.set_ipc_text(std::move(text));
}

void ProcView::set_process_texts(ProcTexts texts) {
  impl_->files.set_texts(std::move(texts));
}

void ProcView::add_folder(ProcFolder& folder) {
  impl_->proc_tree.add_folder(folder);
}

// What the kernel tells of an open file; asking the file itself (fstat) would ask this very loop.
pid_t ProcView::process_of_directory(pid_t tid, int fd) const {
  auto text = impl_->plain_proc.read({geteuid(), getegid()}, fmt::format("{}/fdinfo/{}", tid, fd));
  std::string_view rest = text ? *text : std::string_view{};
  while (!rest.empty()) {
    std::string_view line = next_line(rest);
    if (line.substr(0, 4) != "ino:") continue;  // since Linux 5.14
    auto inode = to_number<ino_t>(trimmed(line.substr(4)));
    return inode ? impl_->proc_tree.process_of(impl_->fs.file_of("proc", *inode)) : 0;
  }
  return 0;
}

ProcView::ProcView(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ProcView::~ProcView() = default;

}  // namespace krg
