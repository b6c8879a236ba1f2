// krg_gdb: gdb looks at a process whose threads run on several nodes, stops it at breakpoints and
// has it make steps. krgd, its tracer, holds all of its threads and lets them go on; this program
// tells gdb of them in the remote serial protocol, over its standard input and output (gdb's
// manual, appendix E).
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <poll.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "gdb_registers.h"
#include "gdb_thread_locals.h"
#include "krg/runtime/control_client.h"
#include "krg/runtime/hex.h"
#include "number_word.h"

namespace krg {
namespace {

constexpr int kFailure = 1;
constexpr int kUsageError = 2;

constexpr const char* kHelp =
    R"(Usage: krg_gdb PID [GDB-ARGUMENT…]
Starts gdb on a process that has threads on several nodes (krg_where --threads).
All of them stand still, wherever they are, until gdb has them go on, detaches or
ends. Threads, stacks, variables (thread-local ones, too) and registers can be
looked at, variables changed; breakpoints stop whichever thread meets them, on
any node, and all others with it; step, next and finish work as ever. Signals
stop nothing: the process gets them. Registers cannot be changed, functions not
be called. PID must have begun on the node where krg_gdb runs.
    krg_gdb PID -batch -ex 'thread apply all bt'
  --stub PID      speak gdb's remote protocol: target remote | krg_gdb --stub PID
  -h, --help      -V, --version
Exit status: gdb's; 1 when the process cannot be looked at; 2 for a wrong option.
)";

constexpr size_t kMostPacketBytes = 0x4000;
constexpr int kInterruptedByUser = 2, kTrapped = 5;  // signals, as gdb numbers them
constexpr char kInterrupt = 3;                       // what gdb sends instead of a packet

template <class T>
std::optional<T> from_told(const nlohmann::json& told, const char* name) {
  const std::string bytes = from_hex(told.value(name, ""));
  if (bytes.size() != sizeof(T)) return std::nullopt;
  T value{};
  std::memcpy(&value, bytes.data(), bytes.size());
  return value;
}

class Stub {
 public:
  Stub(ControlClient krgd, pid_t pid) : krgd_(std::move(krgd)), pid_(pid) {
    krgd_.on_notice([this](const std::string& name, const nlohmann::json& told) {
      if (name == "spread.trapped") trap_ = told;
    });
  }

  // A fork, or a checkpoint, which is under way is over in a while.
  Status hold() {
    constexpr int kMostTries = 1000;
    constexpr useconds_t kTryAgainUs = 10'000;
    auto held = krgd_.call("spread.hold", {{"pid", pid_}});
    for (int i = 0; i < kMostTries && !held && held.error().code.value() == EAGAIN; ++i) {
      usleep(kTryAgainUs);
      held = krgd_.call("spread.hold", {{"pid", pid_}});
    }
    if (!held) return held.error();
    threads_.clear();
    for (const nlohmann::json& told : held->result["threads"]) {
      threads_.push_back({told.value("tid", 0), told.value("node", 0),
                          from_told<user_regs_struct>(told, "registers"),
                          from_hex(told.value("extended", ""))});
    }
    if (threads_.empty()) return errno_error("it has no threads any more", ESRCH);
    if (!find(chosen_)) chosen_ = threads_.front().tid;
    return {};
  }

  // gdb shows why there is no answer when it reads, not when it cannot write.
  void await_question() { receive(); }

  // Until gdb has gone.
  void serve() {
    while (auto packet = receive()) {
      const bool is_last = packet->substr(0, 1) == "D" || packet->substr(0, 1) == "k";
      send(is_last ? "OK" : answer(*packet));
      if (*packet == "QStartNoAckMode") acknowledges_ = false;
      if (is_last) return;
    }
  }

 private:
  struct Thread {
    pid_t tid = 0;
    int node = 0;
    std::optional<user_regs_struct> registers;
    std::string extended;
  };

  std::optional<std::string> receive() {
    int c;
    while ((c = getchar()) != '$')
      if (c == EOF) return std::nullopt;
    std::string packet;
    while ((c = getchar()) != '#') {
      if (c == EOF) return std::nullopt;
      packet += static_cast<char>(c == '}' ? getchar() ^ kEscape : c);
    }
    if (getchar() == EOF || getchar() == EOF) return std::nullopt;  // pipes do not err
    if (acknowledges_) putchar('+');
    return packet;
  }

  void send(const std::string& text) {
    std::string packet;
    unsigned sum = 0;
    for (const char c : text) {
      if (c == '#' || c == '$' || c == '}' || c == '*') {
        packet += '}';
        packet += static_cast<char>(c ^ kEscape);
      } else {
        packet += c;
      }
    }
    for (const char c : packet) sum += static_cast<unsigned char>(c);
    packet = fmt::format("${}#{:02x}", packet, sum & 0xff);
    fwrite(packet.data(), 1, packet.size(), stdout);
    fflush(stdout);
  }

  // Empty: not offered.
  std::string answer(const std::string& packet) {
    const auto begins = [&](std::string_view with) { return packet.rfind(with, 0) == 0; };
    if (begins("q") || begins("Q")) return answer_query(packet);
    if (packet == "?") return stopped(kTrapped);
    if (packet == "vCont?") return "vCont;c;C;s;S";
    if (begins("vCont;")) return go_on(packet.substr(strlen("vCont")));
    if (begins("H")) return choose(packet.substr(2));
    if (begins("T")) return find(tid_of(packet.substr(1))) ? "OK" : "E01";
    if (packet == "g") return registers();
    if (begins("m")) return memory(packet.substr(1));
    if (begins("M")) return write(packet.substr(1));
    if (begins("Z0,") || begins("z0,")) return set_breakpoint(packet);
    if (begins("G") || begins("P"))
      return "E.registers of threads on several nodes stay as they are";
    return "";
  }

  std::string answer_query(const std::string& packet) {
    const auto begins = [&](std::string_view with) { return packet.rfind(with, 0) == 0; };
    if (begins("qSupported"))
      return fmt::format(
          "PacketSize={:x};QStartNoAckMode+;swbreak+;vContSupported+;qXfer:features:read+;"
          "qXfer:auxv:read+;qXfer:exec-file:read+",
          kMostPacketBytes);
    if (packet == "QStartNoAckMode") return "OK";
    if (packet == "qAttached") return "1";
    if (packet == "qC") return fmt::format("QC{:x}", chosen_);
    if (packet == "qfThreadInfo") return thread_list();
    if (packet == "qsThreadInfo") return "l";
    if (begins("qThreadExtraInfo,")) return about(packet.substr(strlen("qThreadExtraInfo,")));
    if (begins("qSymbol:")) return thread_locals_.answer(packet);
    if (begins("qGetTLSAddr:")) return thread_local_address(packet.substr(strlen("qGetTLSAddr:")));
    if (begins("qXfer:features:read:target.xml:")) return part(packet, gdb_target_description());
    if (begins("qXfer:auxv:read:")) return part(packet, file("auxv"));
    if (begins("qXfer:exec-file:read:")) return part(packet, program());
    return "";
  }

  static pid_t tid_of(const std::string& number) {
    return static_cast<pid_t>(std::strtol(number.c_str(), nullptr, 16));
  }

  const Thread* find(pid_t tid) const {
    auto found = std::find_if(threads_.begin(), threads_.end(),
                              [tid](const Thread& thread) { return thread.tid == tid; });
    return found == threads_.end() ? nullptr : &*found;
  }

  std::string thread_list() const {
    std::string list;
    for (const Thread& thread : threads_)
      list += fmt::format("{}{:x}", list.empty() ? "m" : ",", thread.tid);
    return list;
  }

  std::string about(const std::string& number) const {
    const Thread* thread = find(tid_of(number));
    if (!thread) return "E01";
    return to_hex(fmt::format("node {}{}", thread->node, thread->registers ? "" : ", on its way"));
  }

  // 0 and -1: any.
  std::string choose(const std::string& number) {
    const Thread* thread = find(tid_of(number));
    if (thread) chosen_ = thread->tid;
    return thread || number == "0" || number == "-1" ? "OK" : "E01";
  }

  std::string registers() const {
    const Thread none{};
    const Thread* thread = find(chosen_);
    if (!thread) thread = &none;
    return gdb_registers(thread->registers, thread->extended);
  }

  Result<std::string> read(uint64_t address, size_t bytes) {
    auto read = krgd_.call("spread.read", {{"pid", pid_}, {"address", address}, {"bytes", bytes}});
    if (!read) return read.error();
    return from_hex(read->result.value("bytes", ""));
  }

  // ADDRESS,LENGTH
  std::string memory(const std::string& what) {
    char* rest = nullptr;
    const uint64_t address = std::strtoull(what.c_str(), &rest, 16);
    const uint64_t bytes = *rest == ',' ? std::strtoull(rest + 1, nullptr, 16) : 0;
    auto found = read(address, std::min<uint64_t>(bytes, kMostPacketBytes / 2));
    return found ? to_hex(*found) : "E0e";
  }

  // ADDRESS,LENGTH:BYTES
  std::string write(const std::string& what) {
    const uint64_t address = std::strtoull(what.c_str(), nullptr, 16);
    auto written = krgd_.call("spread.write",
                              {{"address", address}, {"bytes", what.substr(what.find(':') + 1)}});
    return written ? "OK" : "E0e";
  }

  // Z0,ADDRESS,KIND
  std::string set_breakpoint(const std::string& packet) {
    const uint64_t address = std::strtoull(packet.c_str() + strlen("Z0,"), nullptr, 16);
    auto set = krgd_.call("spread.breakpoint", {{"address", address}, {"set", packet[0] == 'Z'}});
    return set ? "OK" : "E0e";
  }

  // THREAD,OFFSET,LINK_MAP
  std::string thread_local_address(const std::string& what) {
    char* rest = nullptr;
    const Thread* thread = find(static_cast<pid_t>(std::strtoull(what.c_str(), &rest, 16)));
    const uint64_t offset = *rest == ',' ? std::strtoull(rest + 1, &rest, 16) : 0;
    const uint64_t link_map = *rest == ',' ? std::strtoull(rest + 1, nullptr, 16) : 0;
    if (!thread || !thread->registers) return "E01";
    auto address = thread_locals_.find(thread->registers->fs_base, link_map, offset);
    return address ? fmt::format("{:x}", *address) : "E.krg_gdb: " + address.error().message();
  }

  // ;ACTION[:THREAD]… of which a thread takes the first that is its own or has no thread.
  std::string go_on(const std::string& actions) {
    pid_t step = 0;
    bool alone = true;
    for (size_t at = 0; at != std::string::npos; at = actions.find(';', at + 1)) {
      const std::string action = actions.substr(at + 1, actions.find(';', at + 1) - at - 1);
      const size_t colon = action.find(':');
      if (colon == std::string::npos) alone = false;
      if (action[0] != 's' && action[0] != 'S') continue;
      step = colon == std::string::npos ? chosen_ : tid_of(action.substr(colon + 1));
    }
    trap_.reset();
    if (auto gone = krgd_.call("spread.go_on", {{"step", step}, {"alone", alone && step != 0}});
        !gone)
      return kEnded;
    return await_stop();
  }

  std::string await_stop() {
    while (!trap_) {
      pollfd both[] = {{STDIN_FILENO, POLLIN, 0}, {krgd_.fd(), POLLIN, 0}};
      if (poll(both, std::size(both), -1) < 0 && errno != EINTR) return kEnded;
      if (both[1].revents != 0 && !krgd_.receive_notice()) return kEnded;
      if (both[0].revents == 0) continue;
      const int c = getchar();
      if (c == kInterrupt) return stand(kInterruptedByUser);
      if (c == EOF) return "";  // gdb has gone: so are krgd's connection and what it holds
    }
    if (trap_->value("tid", 0) == 0) return ended(trap_->value("status", 0));
    chosen_ = trap_->value("tid", 0);
    return stand(kTrapped);
  }

  static std::string ended(int status) {
    return WIFSIGNALED(status) ? fmt::format("X{:02x}", WTERMSIG(status))
                               : fmt::format("W{:02x}", WEXITSTATUS(status));
  }

  std::string stand(int signal) { return hold() ? stopped(signal) : kEnded; }

  std::string stopped(int signal) const {
    const bool at_breakpoint = trap_ && trap_->value("breakpoint", false);
    return fmt::format("T{:02x}{}thread:{:x};", signal,
                       signal == kTrapped && at_breakpoint ? "swbreak:;" : "", chosen_);
  }

  // Of a text that gdb reads piece by piece: …:OFFSET,LENGTH
  static std::string part(const std::string& packet, const std::string& text) {
    char* rest = nullptr;
    const size_t offset = std::strtoull(packet.c_str() + packet.rfind(':') + 1, &rest, 16);
    const size_t length = *rest == ',' ? std::strtoull(rest + 1, nullptr, 16) : 0;
    if (offset >= text.size()) return "l";
    const std::string piece = text.substr(offset, std::min(length, kMostPacketBytes / 4));
    return (offset + piece.size() < text.size() ? "m" : "l") + piece;
  }

  std::string file(const char* name) const {
    std::ifstream in(fmt::format("/proc/{}/{}", pid_, name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::string program() const {
    char path[PATH_MAX];
    const ssize_t length = readlink(fmt::format("/proc/{}/exe", pid_).c_str(), path, sizeof path);
    return length > 0 ? std::string(path, static_cast<size_t>(length)) : std::string();
  }

  static constexpr char kEscape = 0x20;
  static constexpr const char* kEnded = "W00";  // krgd knows nothing of it any more

  ControlClient krgd_;
  const pid_t pid_;
  std::vector<Thread> threads_;
  pid_t chosen_ = 0;
  bool acknowledges_ = true;
  std::optional<nlohmann::json> trap_;  // that has ended what it was told to do last
  GdbThreadLocals thread_locals_{
      [this](uint64_t address, size_t bytes) { return read(address, bytes); }};
};

int fail(const Error& error) {
  fmt::print(stderr, "krg_gdb: {}\n", error.message());
  return kFailure;
}

int serve_gdb(pid_t pid) {
  signal(SIGINT, SIG_IGN);             // of gdb's terminal: gdb says so by itself
  setvbuf(stdin, nullptr, _IONBF, 0);  // what waits is known by poll()
  auto krgd = ControlClient::connect_to_session();
  if (!krgd) return fail(krgd.error());
  Stub stub(std::move(*krgd), pid);
  if (auto held = stub.hold(); !held) {
    stub.await_question();
    return fail(held.error());
  }
  stub.serve();
  return EXIT_SUCCESS;
}

int start_gdb(pid_t pid, char** arguments) {
  char self[PATH_MAX] = {};
  if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return fail(errno_error("readlink"));
  const std::string connect = fmt::format("target remote | '{}' --stub {}", self, pid);
  std::vector<const char*> words = {"gdb", "-q", "-iex", "set sysroot /", "-ex", connect.c_str()};
  for (char** word = arguments; *word; ++word) words.push_back(*word);
  words.push_back(nullptr);
  execvp("gdb", const_cast<char**>(words.data()));
  return fail(errno_error("gdb"));
}

int run(int argc, char** argv) {
  const std::string first = argc > 1 ? argv[1] : "";
  if (first == "-h" || first == "--help") {
    fmt::print("{}", kHelp);
    return EXIT_SUCCESS;
  }
  if (first == "-V" || first == "--version") {
    fmt::print("krg_gdb (Kerrighed) {}\n", KRG_VERSION);
    return EXIT_SUCCESS;
  }
  const bool is_stub = first == "--stub";
  const std::string word = argc > (is_stub ? 2 : 1) ? argv[is_stub ? 2 : 1] : "";
  const auto pid = number_of(word);
  if (!pid || *pid == 0) {
    fmt::print(stderr, "krg_gdb: '{}' is no pid\nTry 'krg_gdb --help'.\n", word);
    return kUsageError;
  }
  return is_stub ? serve_gdb(static_cast<pid_t>(*pid))
                 : start_gdb(static_cast<pid_t>(*pid), argv + 2);
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  return krg::run(argc, argv);
}
