// krg_gdb: gdb looks at a process whose threads run on several nodes. krgd, its tracer, holds all
// of them still; this program tells gdb of them in the remote serial protocol, over its standard
// input and output (gdb's manual, appendix E): threads, registers, memory. It changes nothing.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <sys/user.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

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
All of them stand still, wherever they are, until gdb detaches or ends; then the
process goes on. Threads, stacks and variables can be looked at (info threads,
thread apply all bt); the process cannot be changed, stepped or given
breakpoints. PID must have begun on the node where krg_gdb runs.
    krg_gdb PID -batch -ex 'thread apply all bt'
  --stub PID      speak gdb's remote protocol: target remote | krg_gdb --stub PID
  -h, --help      -V, --version
Exit status: gdb's; 1 when the process cannot be looked at; 2 for a wrong option.
)";

constexpr size_t kMostPacketBytes = 0x4000;
constexpr const char* kArchitecture =
    "<target><architecture>i386:x86-64</architecture><osabi>GNU/Linux</osabi></target>";

void append(std::string& bytes, uint64_t value, size_t width) {
  bytes.append(reinterpret_cast<const char*>(&value), width);
}

// As gdb numbers them: the general ones.
std::string general_registers(const user_regs_struct& r) {
  std::string bytes;
  for (uint64_t value : {r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10,
                         r.r11, r.r12, r.r13, r.r14, r.r15, r.rip})
    append(bytes, value, sizeof value);
  for (uint64_t value : {r.eflags, r.cs, r.ss, r.ds, r.es, r.fs, r.gs}) append(bytes, value, 4);
  return bytes;
}

// Behind those: the floating-point stack, its control words, the vector registers (SSE).
std::string vector_registers(const user_fpregs_struct& r) {
  constexpr size_t kOfStack = 8, kStackBytes = 10, kSlotBytes = 16;
  std::string bytes;
  const auto* stack = reinterpret_cast<const char*>(r.st_space);
  for (size_t i = 0; i < kOfStack; ++i) bytes.append(stack + i * kSlotBytes, kStackBytes);
  const std::initializer_list<uint64_t> control = {
      r.cwd, r.swd, r.ftw, r.rip >> 32, r.rip & UINT32_MAX, r.rdp >> 32, r.rdp & UINT32_MAX, r.fop};
  for (uint64_t value : control) append(bytes, value, 4);
  bytes.append(reinterpret_cast<const char*>(r.xmm_space), sizeof r.xmm_space);
  append(bytes, r.mxcsr, 4);
  return bytes;
}

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
  Stub(ControlClient krgd, pid_t pid) : krgd_(std::move(krgd)), pid_(pid) {}

  Status hold() {
    auto held = krgd_.call("spread.hold", {{"pid", pid_}});
    if (!held) return held.error();
    for (const nlohmann::json& told : held->result["threads"]) {
      threads_.push_back({told.value("tid", 0), told.value("node", 0),
                          from_told<user_regs_struct>(told, "registers"),
                          from_told<user_fpregs_struct>(told, "vectors")});
    }
    if (threads_.empty()) return errno_error("it has no threads any more", ESRCH);
    chosen_ = threads_.front().tid;
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
    std::optional<user_fpregs_struct> vectors;
  };

  std::optional<std::string> receive() {
    int c;
    while ((c = getchar()) != '$')
      if (c == EOF) return std::nullopt;
    std::string packet;
    while ((c = getchar()) != '#') {
      if (c == EOF) return std::nullopt;
      packet += static_cast<char>(c);
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
        packet += static_cast<char>(c ^ 0x20);
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
    if (begins("qSupported"))
      return fmt::format(
          "PacketSize={:x};QStartNoAckMode+;qXfer:features:read+;qXfer:auxv:read+;"
          "qXfer:exec-file:read+",
          kMostPacketBytes);
    if (packet == "QStartNoAckMode") return "OK";
    if (packet == "?") return fmt::format("T05thread:{:x};", chosen_);
    if (packet == "qAttached") return "1";
    if (packet == "qC") return fmt::format("QC{:x}", chosen_);
    if (packet == "qfThreadInfo") return thread_list();
    if (packet == "qsThreadInfo") return "l";
    if (begins("qThreadExtraInfo,")) return about(packet.substr(strlen("qThreadExtraInfo,")));
    if (begins("H")) return choose(packet.substr(2));
    if (begins("T")) return find(packet.substr(1)) ? "OK" : "E01";
    if (packet == "g") return registers();
    if (begins("m")) return memory(packet.substr(1));
    if (begins("qXfer:features:read:target.xml:")) return part(packet, kArchitecture);
    if (begins("qXfer:auxv:read:")) return part(packet, file("auxv"));
    if (begins("qXfer:exec-file:read:")) return part(packet, program());
    if (begins("c") || begins("s") || begins("C") || begins("S") || begins("G") || begins("M") ||
        begins("P") || begins("X"))
      return "E01";
    return "";
  }

  const Thread* find(const std::string& number) const {
    const auto tid = static_cast<pid_t>(std::strtol(number.c_str(), nullptr, 16));
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
    const Thread* thread = find(number);
    if (!thread) return "E01";
    return to_hex(fmt::format("node {}{}", thread->node, thread->registers ? "" : ", on its way"));
  }

  // 0 and -1: any.
  std::string choose(const std::string& number) {
    const Thread* thread = find(number);
    if (thread) chosen_ = thread->tid;
    return thread || number == "0" || number == "-1" ? "OK" : "E01";
  }

  std::string registers() const {
    const Thread* thread = find(fmt::format("{:x}", chosen_));
    const auto told = [](const auto& known, auto make) {
      const std::string bytes =
          make(known.value_or(typename std::decay_t<decltype(known)>::value_type{}));
      return known ? to_hex(bytes) : std::string(2 * bytes.size(), 'x');  // not known
    };
    const Thread none{};
    if (!thread) thread = &none;
    return told(thread->registers, general_registers) + told(thread->vectors, vector_registers);
  }

  std::string memory(const std::string& what) {
    char* rest = nullptr;
    const uint64_t address = std::strtoull(what.c_str(), &rest, 16);
    const uint64_t bytes = *rest == ',' ? std::strtoull(rest + 1, nullptr, 16) : 0;
    auto read =
        krgd_.call("spread.read", {{"pid", pid_},
                                   {"address", address},
                                   {"bytes", std::min<uint64_t>(bytes, kMostPacketBytes / 2)}});
    return read ? read->result.value("bytes", "") : "E0e";
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

  ControlClient krgd_;
  const pid_t pid_;
  std::vector<Thread> threads_;
  pid_t chosen_ = 0;
  bool acknowledges_ = true;
};

int fail(const Error& error) {
  fmt::print(stderr, "krg_gdb: {}\n", error.message());
  return kFailure;
}

int serve_gdb(pid_t pid) {
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
