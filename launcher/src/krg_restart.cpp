// krg_restart: goes on from a checkpoint: krgrun --restart, by the original's name.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace krg {
namespace {

constexpr const char* kHelp =
    R"(Usage: krg_restart [KRGRUN OPTION…] DIR [VERSION]
Goes on from the checkpoint in DIR (the newest version unless one is given), with the
same pids, in a cluster that runs already or one that is started for it (krgrun's
options say how: -N 4, --cluster=NAME, --checkpoint-every=30m, …).
  -h, --help    -V, --version
Exit status: the program's; 125 when it cannot be restarted.
)";

bool is_version(const std::string& word) {
  return !word.empty() && word.size() < 10 &&
         word.find_first_not_of("0123456789") == std::string::npos;
}

// The krgrun beside this program.
std::string krgrun_path() {
  char own[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", own, sizeof own);
  std::string path(own, length > 0 ? static_cast<size_t>(length) : 0);
  return path.substr(0, path.rfind('/') + 1) + "krgrun";
}

int run(std::vector<std::string> words) {
  for (const std::string& word : words) {
    if (word == "-h" || word == "--help") return fmt::print("{}", kHelp), 0;
    if (word == "-V" || word == "--version")
      return fmt::print("krg_restart (Kerrighed) {}\n", KRG_VERSION), 0;
  }
  std::string version = "0";
  if (words.size() > 1 && is_version(words.back()) && words[words.size() - 2][0] != '-') {
    version = words.back();
    words.pop_back();
  }
  if (words.empty() || words.back().starts_with("-")) {
    fmt::print(stderr, "krg_restart: DIR is wanted\nTry 'krg_restart --help'.\n");
    return 2;
  }
  if (getenv("KRG_CONTROL")) {
    fmt::print(stderr,
               "krg_restart: inside of a session nothing can be restarted: call it outside\n");
    return 125;
  }
  words.back() = "--restart=" + words.back();
  words.push_back("--restart-version=" + version);
  const std::string program = krgrun_path();
  words.insert(words.begin(), program);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  execv(program.c_str(), arguments.data());
  fmt::print(stderr, "krg_restart: {}: {}\n", program, strerror(errno));
  return 125;
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  return krg::run({argv + 1, argv + argc});
}
