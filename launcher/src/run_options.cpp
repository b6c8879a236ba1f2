// SPDX-License-Identifier: GPL-2.0-or-later
#include "run_options.h"

#include <fmt/core.h>

#include <boost/program_options.hpp>
#include <cctype>
#include <filesystem>
#include <map>
#include <sstream>

#include "memory_size.h"

namespace krg {
namespace {

namespace po = boost::program_options;

struct RawOptions {
  RunOptions run;
  unsigned nodes = 0;
  unsigned cpus_per_task = 0;
  double timeout_s = 0;
  std::string time_limit, launcher, network, memory_per_node, checkpoint_every, lost_peers, openmp,
      shared_files;
  std::string statistics, threads;
  unsigned quiet = 0, verbose = 0;
  bool unbuffered = false;
};

// Words that may stand alone, and their counted forms (-vv).
po::options_description describe(RawOptions& raw) {
  RunOptions& run = raw.run;
  po::options_description all("Options");
  auto add = all.add_options();
  add("nodes,N", po::value(&raw.nodes), "nodes to run on");
  add("ntasks,n", po::value(&run.tasks), "copies of the program (KRG_TASK_ID tells them apart)");
  add("cpus-per-task,c", po::value(&raw.cpus_per_task),
      "processors of each node (Slurm: for each copy)");
  add("time,t", po::value(&raw.time_limit), "time limit as srun takes it: minutes, h:m:s, d-h ...");
  add("timeout", po::value(&raw.timeout_s), "time limit in seconds: TERM, then KILL");
  add("nodelist,w", po::value(&run.node_list), "use these nodes (Slurm, hostfile)");
  add("exclude,x", po::value(&run.exclude), "do not use these nodes (Slurm, hostfile)");
  add("chdir,D", po::value(&run.directory), "working directory of the program");
  add("export", po::value(&run.exports), "ALL, NONE, or names and NAME=VALUE, by commas");
  add("input,i", po::value(&run.input), "file for stdin (%j job, %N node, %t task), or none");
  add("output,o", po::value(&run.output), "file for stdout");
  add("error,e", po::value(&run.error), "file for stderr (default: as --output)");
  add("label,l", po::bool_switch(&run.label), "put the task's number before each line");
  add("unbuffered,u", po::bool_switch(&raw.unbuffered), "no effect: output is never buffered");
  add("pty", po::bool_switch(&run.pty), "run the program on a pseudo-terminal");
  add("hostfile", po::value(&run.host_file), "one host a line; started by mpirun over ssh");
  add("rsh-agent", po::value(&run.remote_shell), "mpirun's way to the hosts in place of ssh");
  add("launcher", po::value(&raw.launcher), "auto, virtual, mpirun (or ssh) or slurm");
  add("cluster", po::value(&run.cluster), "join this running cluster; none: start one");
  add("network", po::value(&raw.network), "of virtual nodes: veth (own) or host (the caller's)");
  add("mem-per-node", po::value(&raw.memory_per_node),
      "memory of each node for shared and remote memory (256M)");
  add("balance", po::bool_switch(&run.balance),
      "move running processes to less loaded nodes (with the capability CAN_MIGRATE)");
  add("share-files", po::value(&raw.shared_files),
      "keep shared mappings of files in this folder coherent over nodes");
  add("checkpoint-every", po::value(&raw.checkpoint_every),
      "save the program at this interval: seconds, or 30m, 2h");
  add("checkpoint-dir", po::value(&run.checkpoint_folder),
      "folder for that, and for a checkpoint on SIGUSR1");
  add("keep", po::value(&run.checkpoints_kept), "so many newest checkpoints (0: all)");
  add("restart", po::value(&run.restart_folder), "go on from the checkpoint in this folder");
  add("lazy", po::bool_switch(&run.restarts_lazily),
      "with --restart: run before all pages are loaded; the rest comes when it is touched");
  add("files", po::bool_switch(&run.checkpoints_files),
      "save files that are open for writing with checkpoints; --restart puts them back");
  add("lost-peers", po::value(&raw.lost_peers),
      "connections and pipes to outside, at --restart: fail, or close: they are closed (fail)");
  add("restart-version", po::value(&run.restart_version), "of that folder (0: the newest)");
  add("restart-fd", po::value(&run.restart_fd),
      "descriptor that gets a line when it is decided: 0, the program runs again; else an errno");
  add("omp", po::value(&raw.openmp),
      "OpenMP programs' runtime: native (the system's libgomp: threads on one node), krg "
      "(libkrgomp: on all, and threads stay there), or auto (krg when PROGRAM itself needs "
      "libgomp)");
  add("threads", po::value(&raw.threads),
      "threads on several nodes: auto (those that wait for pages more than they compute come home) "
      "or stay (auto, but stay with --omp=krg)");
  add("multiple-writers", po::bool_switch(&run.multiple_writers),
      "pages that threads of several nodes write may be written by all at a time (not with "
      "--omp=native)");
  add("stats", po::value(&raw.statistics)->implicit_value("text"),
      "tell at the end what threads over nodes waited for (or =json)");
  add("caps", po::value(&run.caps), "capabilities of the program: +NAME,-NAME,...");
  add("kill-on-bad-exit", po::bool_switch(&run.kill_on_bad_exit),
      "end all copies when one fails or a node dies");
  add("dry-run", po::bool_switch(&run.dry_run), "say what would be started, and stop");
  add("verbose,v", po::value(&raw.verbose)->zero_tokens()->implicit_value(1), "say more");
  add("quiet,q", po::value(&raw.quiet)->zero_tokens()->implicit_value(1), "say less");
  add("version,V", po::bool_switch(&run.wants_version), "print the version");
  add("help,h", po::bool_switch(&run.wants_help), "print this");
  return all;
}

// Options end at the program's name; what follows is the program's own. An option's value may be a
// word of its own, so the options themselves say where they end.
size_t options_end(const po::options_description& known, const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") return i;
    if (word.size() < 2 || word[0] != '-') return i;
    const bool is_long = word[1] == '-';
    const std::string name = is_long ? word.substr(2, word.find('=') - 2) : word.substr(0, 2);
    const po::option_description* option =
        known.find_nothrow(is_long ? name : name, !is_long ? false : true, false, false);
    if (!option) continue;  // the parser will say that it is unknown
    const bool takes_value = option->semantic()->min_tokens() > 0;
    const bool has_value = is_long ? word.find('=') != std::string::npos : word.size() > 2;
    if (takes_value && !has_value) ++i;
  }
  return words.size();
}

// KRGRUN_TIME for --time, KRGRUN_KILL_ON_BAD_EXIT for --kill-on-bad-exit, ...
std::string option_of_variable(const po::options_description& known, const std::string& variable) {
  static constexpr std::string_view kPrefix = "KRGRUN_";
  if (variable.rfind(kPrefix, 0) != 0) return "";
  std::string name = variable.substr(kPrefix.size());
  for (char& c : name) c = c == '_' ? '-' : static_cast<char>(std::tolower(c));
  return known.find_nothrow(name, false) ? name : "";
}

Result<std::chrono::seconds> parse_interval(const std::string& text) {
  const Error bad =
      text_error("--checkpoint-every takes seconds, or 30s, 30m, 2h, 1d, not " + text);
  size_t end = 0;
  while (end < text.size() && std::isdigit(static_cast<unsigned char>(text[end]))) ++end;
  if (end == 0 || end > 9 || text.size() > end + 1) return bad;
  const long number = std::stol(text.substr(0, end));
  static const std::map<std::string, long> kUnits = {
      {"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
  auto unit = kUnits.find(text.substr(end));
  if (unit == kUnits.end() || number == 0) return bad;
  return std::chrono::seconds(number * unit->second);
}

std::string absolute(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

Status finish_checkpoints(RawOptions& raw) {
  RunOptions& run = raw.run;
  if (!raw.lost_peers.empty() && raw.lost_peers != "fail" && raw.lost_peers != "close")
    return text_error("--lost-peers is fail or close, not " + raw.lost_peers);
  run.closes_lost_peers = raw.lost_peers == "close";
  run.restart_folder = absolute(run.restart_folder);
  run.checkpoint_folder = absolute(run.checkpoint_folder);
  if (!raw.checkpoint_every.empty()) {
    auto interval = parse_interval(raw.checkpoint_every);
    if (!interval) return interval.error();
    run.checkpoint_every = *interval;
    if (run.checkpoint_folder.empty()) run.checkpoint_folder = run.restart_folder;
    if (run.checkpoint_folder.empty())
      return text_error("--checkpoint-every needs --checkpoint-dir");
  }
  if (!run.restart_folder.empty()) {
    if (!run.program.empty())
      return text_error("--restart takes no program: it goes on with its own");
    if (run.tasks > 1) return text_error("--restart is for one copy (-n 1)");
  }
  if (run.restarts_lazily && run.restart_folder.empty())
    return text_error("--lazy says how to restart: it needs --restart");
  if (run.checkpoint_folder.empty()) return {};
  if (run.tasks > 1) return text_error("checkpoints are for one copy (-n 1)");
  run.caps += run.caps.empty() ? "+CHECKPOINTABLE" : ",+CHECKPOINTABLE";
  return {};
}

Status finish(RawOptions& raw, const po::variables_map& given) {
  RunOptions& run = raw.run;
  if (given.contains("nodes")) {
    if (raw.nodes == 0) return text_error("-N needs at least one node");
    run.nodes = raw.nodes;
  }
  if (run.tasks == 0) return text_error("-n needs at least one copy");
  if (given.contains("cpus-per-task")) {
    if (raw.cpus_per_task == 0) return text_error("-c needs at least one processor");
    run.cpus_per_task = raw.cpus_per_task;
  }
  if (run.balance) run.caps += run.caps.empty() ? "+CAN_MIGRATE" : ",+CAN_MIGRATE";
  if (!raw.memory_per_node.empty()) {
    auto bytes = parse_memory_size(raw.memory_per_node);
    if (!bytes) return bytes.error();
    run.memory_per_node = *bytes;
  }
  if (!raw.shared_files.empty()) {
    auto folder = parse_shared_folder(raw.shared_files);
    if (!folder) return folder.error();
    run.shared_files = *folder;
  }
  if (!raw.time_limit.empty()) {
    auto limit = parse_time_limit(raw.time_limit);
    if (!limit) return limit.error();
    run.time_limit = *limit;
  }
  if (given.contains("timeout")) {
    if (raw.timeout_s <= 0) return text_error("--timeout takes a number of seconds above 0");
    run.time_limit = std::chrono::seconds(static_cast<long>(raw.timeout_s + 0.999));
  }
  static const std::map<std::string, LauncherKind> kLaunchers = {
      {"", LauncherKind::kAuto},           {"auto", LauncherKind::kAuto},
      {"virtual", LauncherKind::kVirtual}, {"mpirun", LauncherKind::kMpirun},
      {"ssh", LauncherKind::kMpirun},      {"slurm", LauncherKind::kSlurm}};
  auto launcher = kLaunchers.find(raw.launcher);
  if (launcher == kLaunchers.end())
    return text_error("--launcher is auto, virtual, mpirun, ssh or slurm");
  run.launcher = launcher->second;
  if (auto checked = finish_checkpoints(raw); !checked) return checked;
  if (raw.network != "" && raw.network != "veth" && raw.network != "host")
    return text_error("--network is veth or host");
  static const std::map<std::string, OpenmpRuntime> kRuntimes = {{"", OpenmpRuntime::kAuto},
                                                                 {"auto", OpenmpRuntime::kAuto},
                                                                 {"native", OpenmpRuntime::kNative},
                                                                 {"krg", OpenmpRuntime::kKrg}};
  auto runtime = kRuntimes.find(raw.openmp);
  if (runtime == kRuntimes.end()) return text_error("--omp is auto, native or krg");
  run.openmp = runtime->second;
  if (raw.threads != "" && raw.threads != "auto" && raw.threads != "stay")
    return text_error("--threads is auto or stay");
  run.says_threads = !raw.threads.empty();
  run.threads_come_home =
      raw.threads.empty() ? run.openmp != OpenmpRuntime::kKrg : raw.threads == "auto";
  if (raw.statistics != "" && raw.statistics != "text" && raw.statistics != "json")
    return text_error("--stats is given alone, or as --stats=json");
  if (raw.statistics != "")
    run.statistics = raw.statistics == "json" ? StatisticsForm::kJson : StatisticsForm::kText;
  if (run.multiple_writers && run.openmp == OpenmpRuntime::kNative)
    return text_error("--multiple-writers needs libkrgomp: --omp=krg or auto");
  run.own_network = raw.network != "host";
  run.verbosity = static_cast<int>(raw.verbose) - static_cast<int>(raw.quiet);
  if (run.pty && run.tasks > 1) return text_error("--pty is for one copy (-n 1)");
  if (run.program.empty() && run.restart_folder.empty() && !run.wants_help && !run.wants_version)
    return text_error("no program given (krgrun --help)");
  return {};
}

}  // namespace

Result<RunOptions> parse_run_options(int argc, char** argv) {
  RawOptions raw;
  const po::options_description known = describe(raw);
  std::vector<std::string> words(argv + 1, argv + argc);
  try {
    const size_t end = options_end(known, words);
    size_t program = end < words.size() && words[end] == "--" ? end + 1 : end;
    raw.run.program.assign(words.begin() + static_cast<long>(std::min(program, words.size())),
                           words.end());
    words.resize(end);
    namespace style = po::command_line_style;
    const int styles = (style::unix_style | style::allow_sticky) & ~style::allow_guessing;
    po::variables_map given;
    po::store(po::command_line_parser(words).options(known).style(styles).run(), given);
    po::store(po::parse_environment(
                  known, [&](const std::string& name) { return option_of_variable(known, name); }),
              given);
    po::notify(given);
    if (auto finished = finish(raw, given); !finished) return finished.error();
  } catch (const po::error& error) {
    return text_error(error.what());
  }
  return raw.run;
}

std::string run_usage() {
  RawOptions raw;
  std::ostringstream text;
  text << "usage: krgrun [OPTION...] [--] PROGRAM [ARGUMENT...]\n" << describe(raw);
  return text.str();
}

Result<std::chrono::seconds> parse_time_limit(const std::string& text) {
  const Error bad = text_error("-t takes minutes, m:s, h:m:s or d-h[:m[:s]], not " + text);
  unsigned long days = 0;
  std::string rest = text;
  const size_t dash = text.find('-');
  std::vector<unsigned long> parts;
  if (dash != std::string::npos) rest = text.substr(0, dash) + ":" + text.substr(dash + 1);
  std::istringstream fields(rest);
  for (std::string field; std::getline(fields, field, ':');) {
    if (field.empty() || field.find_first_not_of("0123456789") != std::string::npos ||
        field.size() > 9)
      return bad;
    parts.push_back(std::stoul(field));
  }
  if (dash != std::string::npos) {
    days = parts.front();
    parts.erase(parts.begin());
    parts.resize(std::max<size_t>(parts.size(), 3));  // d-h: minutes and seconds are 0
  } else if (parts.size() == 1) {
    parts = {0, parts[0], 0};
  } else if (parts.size() == 2) {
    parts.insert(parts.begin(), 0);
  }
  if (parts.size() != 3) return bad;
  return std::chrono::seconds(((days * 24 + parts[0]) * 60 + parts[1]) * 60 + parts[2]);
}

}  // namespace krg
