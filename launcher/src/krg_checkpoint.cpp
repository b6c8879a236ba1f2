// krg_checkpoint: saves applications while they run; shows, checks and removes what was saved.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <getopt.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/consolidate.h"
#include "krg/runtime/control_client.h"
#include "number_word.h"
#include "progress_bar.h"

namespace krg {
namespace {

constexpr int kFailure = 1;
constexpr int kUsageError = 2;
// For a cluster that is writing or tidying there.
constexpr std::chrono::seconds kWriterEnds{10};

constexpr const char* kHelp =
    R"(Usage: krg_checkpoint [-o DIR] [-d TEXT] [-z] [-K N] [-k[SIG]] [--full] [--files] [PID | --all]
       krg_checkpoint freeze [PID]
       krg_checkpoint unfreeze [-k[SIG]] [PID]
       krg_checkpoint list DIR
       krg_checkpoint show|verify DIR [VERSION]
       krg_checkpoint prune DIR N
       krg_checkpoint consolidate DIR [VERSION]
Saves the application of a process (default: of the caller): the tree of the topmost
process above it with the capability CHECKPOINTABLE (krgrun --caps=+CHECKPOINTABLE). It
stops for a moment only, and goes on while it is written; krg_restart goes on from there.
A further checkpoint into the same DIR holds only the pages written since the one before.
  -a, --all            all applications of the cluster, each into DIR/PID
  -o, --output DIR     default: ./checkpoint-PID
  -d, --description TEXT
  -z, --compress       zstd
  -K, --keep N         remove all but the N newest versions in DIR afterwards
  -k, --kill[=SIG]     afterwards send the application SIG (TERM)
  -f, --full           all pages, also those that DIR has already
  -F, --files          contents of files that it has open for writing, too (krgrun --files
                       --restart=DIR puts them back)
  -h, --help    -V, --version
freeze has the application stand, where it can be saved, until unfreeze.
list, show, verify, prune, consolidate work on the folder alone, without a cluster; verify
reads all; consolidate gives a version the pages of the older ones that it needs.
Exit status: 0; 1 when something could not be saved or is damaged; 2 for a wrong option.
)";

struct Options {
  bool all = false, compress = false, full = false, files = false;
  std::string folder, description;
  unsigned keep = 0;
  int signal = 0;
  std::vector<std::string> words;
};

constexpr option kLongOptions[] = {
    {"all", no_argument, nullptr, 'a'},
    {"output", required_argument, nullptr, 'o'},
    {"description", required_argument, nullptr, 'd'},
    {"compress", no_argument, nullptr, 'z'},
    {"keep", required_argument, nullptr, 'K'},
    {"kill", optional_argument, nullptr, 'k'},
    {"full", no_argument, nullptr, 'f'},
    {"files", no_argument, nullptr, 'F'},
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},
    {nullptr, 0, nullptr, 0},
};

int usage_error(const std::string& why) {
  fmt::print(stderr, "krg_checkpoint: {}\nTry 'krg_checkpoint --help'.\n", why);
  return kUsageError;
}

int failure(const Error& error) {
  fmt::print(stderr, "krg_checkpoint: {}\n", error.message());
  return kFailure;
}

std::optional<int> signal_of(std::string text) {
  if (auto number = number_of(text); number && *number > 0 && *number <= 64)
    return static_cast<int>(*number);
  if (text.starts_with("SIG")) text = text.substr(3);
  for (int signal = 1; signal < 32; ++signal)
    if (const char* name = sigabbrev_np(signal); name && text == name) return signal;
  return std::nullopt;
}

// Exits after --help and --version. Error: what is wrong.
Result<Options> parse_options(int argc, char** argv) {
  Options options;
  for (int c; (c = getopt_long(argc, argv, "ao:d:zK:k::fFhV", kLongOptions, nullptr)) != -1;) {
    switch (c) {
      case 'a':
        options.all = true;
        break;
      case 'o':
        options.folder = optarg;
        break;
      case 'd':
        options.description = optarg;
        break;
      case 'z':
        options.compress = true;
        break;
      case 'K':
        if (!number_of(optarg)) return text_error(fmt::format("'{}' is no number", optarg));
        options.keep = static_cast<unsigned>(*number_of(optarg));
        break;
      case 'k':
        if (!signal_of(optarg ? optarg : "TERM"))
          return text_error(fmt::format("'{}' is no signal", optarg));
        options.signal = *signal_of(optarg ? optarg : "TERM");
        break;
      case 'f':
        options.full = true;
        break;
      case 'F':
        options.files = true;
        break;
      case 'h':
        fmt::print("{}", kHelp);
        exit(EXIT_SUCCESS);
      case 'V':
        fmt::print("krg_checkpoint (Kerrighed) {}\n", KRG_VERSION);
        exit(EXIT_SUCCESS);
      default:
        exit(kUsageError);
    }
  }
  options.words.assign(argv + optind, argv + argc);
  return options;
}

// ---- in a session ----

enum class MayHaveEnded { kNo, kYes };

int save(ControlClient& krgd, const Options& options, long pid, const std::string& folder,
         MayHaveEnded may_have_ended = MayHaveEnded::kNo) {
  ProgressBar bar;
  krgd.on_notice([&bar](const std::string& name, const nlohmann::json& packet) {
    if (name == "progress")
      bar.show("writing", packet.value("done", uint64_t{0}), packet.value("total", uint64_t{0}));
  });
  auto done = krgd.call("checkpoint", {{"pid", pid},
                                       {"progress", ProgressBar::is_wanted()},
                                       {"folder", std::filesystem::absolute(folder).string()},
                                       {"description", options.description},
                                       {"compress", options.compress},
                                       {"keep", options.keep},
                                       {"signal", options.signal},
                                       {"full", options.full},
                                       {"files", options.files}});
  krgd.on_notice(nullptr);
  bar.end();
  if (!done && may_have_ended == MayHaveEnded::kYes && done.error().errno_or(0) == ESRCH)
    return EXIT_SUCCESS;
  if (!done) return failure(done.error());
  const nlohmann::json& result = done->result;
  fmt::print(
      "{} version {}: {} process{}, {:.1f} of {:.1f} MiB, paused {:.1f} ms, written in "
      "{:.1f} ms\n",
      folder, result.value("version", 0u), result.value("processes", 0u),
      result.value("processes", 0u) == 1 ? "" : "es", result.value("page_bytes", 0.0) / (1 << 20),
      result.value("memory_bytes", 0.0) / (1 << 20), result.value("pause_us", 0.0) / 1000,
      result.value("write_us", 0.0) / 1000);
  return EXIT_SUCCESS;
}

int save_all(ControlClient& krgd, const Options& options) {
  auto found = krgd.call("checkpoint.applications");
  if (!found) return failure(found.error());
  if (options.folder.empty()) return usage_error("--all needs -o DIR");
  std::error_code error;
  std::filesystem::create_directories(options.folder, error);
  int status = EXIT_SUCCESS;
  for (const nlohmann::json& pid : found->result["pids"])
    if (save(krgd, options, pid.get<unsigned>(),
             fmt::format("{}/{}", options.folder, pid.get<unsigned>()),
             MayHaveEnded::kYes) != EXIT_SUCCESS)
      status = kFailure;
  return status;
}

int save_chosen(const Options& options) {
  if (options.words.size() > 1) return usage_error("one PID is wanted");
  std::optional<long> pid = getppid();
  if (!options.words.empty()) pid = number_of(options.words.front());
  if (!pid) return usage_error(fmt::format("'{}' is no pid", options.words.front()));
  auto krgd = ControlClient::connect_to_session();
  if (!krgd) return failure(krgd.error());
  if (options.all) return save_all(*krgd, options);
  return save(*krgd, options, *pid,
              options.folder.empty() ? fmt::format("checkpoint-{}", *pid) : options.folder);
}

// ---- on a folder ----

int list(const CheckpointStore& store) {
  auto versions = store.versions();
  if (!versions) return failure(versions.error());
  int status = EXIT_SUCCESS;
  for (uint32_t version : *versions) {
    auto info = store.info(version);
    if (!info) {
      fmt::print("{:>6}  damaged: {}\n", version, info.error().message());
      status = kFailure;
      continue;
    }
    fmt::print("{:>6}  {}  {:>10.1f} of {:.1f} MiB  {:>4} processes  {}{}{}\n", version,
               info->created, static_cast<double>(info->page_bytes) / (1 << 20),
               static_cast<double>(info->memory_bytes) / (1 << 20), info->processes, info->command,
               info->description.empty() ? "" : "  # ", info->description);
  }
  return status;
}

std::string_view name_of(FamilyFile::Kind kind) {
  switch (kind) {
    case FamilyFile::Kind::kPath:
      return "file";
    case FamilyFile::Kind::kStandard:
      return "standard stream";
    case FamilyFile::Kind::kTerminal:
      return "terminal";
    case FamilyFile::Kind::kPipe:
      return "pipe";
    case FamilyFile::Kind::kDeleted:
      return "deleted file";
    case FamilyFile::Kind::kSocket:
      return "socket";
    case FamilyFile::Kind::kEvent:
      return "event descriptor";
    case FamilyFile::Kind::kQueue:
      return "message queue";
    case FamilyFile::Kind::kMemory:
      return "shared memory";
    case FamilyFile::Kind::kMaster:
      return "pseudo-terminal's master";
    case FamilyFile::Kind::kSlave:
      return "pseudo-terminal";
  }
  return "descriptor of an unknown kind";
}

void show_processes(const ProcessFamily& family) {
  for (const FamilyMember& member : family.members)
    fmt::print("  process {} ({}), parent {}, {}\n", member.pid, member.name, member.parent,
               member.has_ended()
                   ? std::string("ended")
                   : fmt::format("{} descriptors, on node {}", member.fds.size(), member.node));
  for (const FamilyFile& file : family.files)
    fmt::print("  {} {} at {}\n", name_of(file.kind), file.path, file.offset);
}

int show(const CheckpointStore& store, unsigned version) {
  auto info = store.info(version);
  if (!info) return failure(info.error());
  fmt::print("version {}\ncreated {}\ncommand {}\ndescription {}\n", info->version, info->created,
             info->command, info->description);
  fmt::print("pages {} bytes, of {} bytes of memory\n", info->page_bytes, info->memory_bytes);
  if (info->user_data != 0) fmt::print("data {}\n", info->user_data);
  for (uint32_t older : info->needs) fmt::print("needs version {}\n", older);
  auto parts = store.open_parts(*info);
  if (!parts) return failure(parts.error());
  auto family = merged_family(*info, *parts);
  if (!family) return failure(family.error());
  show_processes(*family);
  return EXIT_SUCCESS;
}

int verify(const CheckpointStore& store, unsigned version) {
  std::vector<uint32_t> versions = {version};
  if (version == 0) {
    auto all = store.versions();
    if (!all) return failure(all.error());
    versions = *all;
  }
  int status = EXIT_SUCCESS;
  for (uint32_t each : versions) {
    auto whole = store.verify(each);
    fmt::print("version {}: {}\n", each, whole ? "whole" : whole.error().message());
    if (!whole) status = kFailure;
  }
  return status;
}

int prune(CheckpointStore& store, unsigned keep) {
  if (auto locked = store.lock(kWriterEnds); !locked) return failure(locked.error());
  auto pruned = store.prune(keep);
  return pruned ? EXIT_SUCCESS : failure(pruned.error());
}

int consolidate_version(const std::string& folder, unsigned version) {
  auto done = consolidate(folder, version, {.patience = kWriterEnds});
  return done ? EXIT_SUCCESS : failure(done.error());
}

int work_on_folder(const std::vector<std::string>& words) {
  const std::string& verb = words[0];
  const bool wants_number = verb == "prune";
  if (words.size() < 2 || words.size() > 3 || (wants_number && words.size() != 3) ||
      (verb == "list" && words.size() != 2))
    return usage_error(verb + (wants_number ? " takes DIR and N" : " takes DIR"));
  const std::optional<long> number = words.size() == 3 ? number_of(words[2]) : 0;
  if (!number || (wants_number && *number == 0))
    return usage_error(fmt::format("'{}' is no number that {} takes", words[2], verb));
  auto store = CheckpointStore::open(words[1], false);
  if (!store) return failure(store.error());
  if (verb == "list") return list(*store);
  const auto version = static_cast<unsigned>(*number);
  if (verb == "show") return show(*store, version);
  if (verb == "consolidate") return consolidate_version(words[1], version);
  return verb == "verify" ? verify(*store, version) : prune(*store, version);
}

int freeze_or_unfreeze(const Options& options) {
  std::optional<long> pid = getppid();
  if (options.words.size() > 1) pid = number_of(options.words[1]);
  if (!pid || options.words.size() > 2) return usage_error(options.words[0] + " takes one PID");
  auto krgd = ControlClient::connect_to_session();
  if (!krgd) return failure(krgd.error());
  auto done = krgd->call("checkpoint",
                         {{"action", options.words[0]}, {"pid", *pid}, {"signal", options.signal}});
  return done ? EXIT_SUCCESS : failure(done.error());
}

int run(const Options& options) {
  static const std::vector<std::string> kVerbs = {"list", "show", "verify", "prune", "consolidate"};
  if (!options.words.empty() &&
      (options.words.front() == "freeze" || options.words.front() == "unfreeze"))
    return freeze_or_unfreeze(options);
  if (!options.words.empty())
    for (const std::string& verb : kVerbs)
      if (options.words.front() == verb) return work_on_folder(options.words);
  return save_chosen(options);
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  auto options = krg::parse_options(argc, argv);
  return options ? krg::run(*options) : krg::usage_error(options.error().message());
}
