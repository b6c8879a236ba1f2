// shared_barriers MEMBERS ROUNDS [FILE]: processes on all nodes meet at a barrier of the library's
// (krg/shmem/client.h), each round. The first process starts the members, which execute this
// program anew (then they are placed). Each writes the round into an object of its own before it
// comes, and finds it in all others' behind the barrier.
//
// With FILE: after these rounds a member waits until there is such a file; those on the node that
// it names come to no round any more, the others to two. Prints "member I node N rounds R", then
// "member I: ERROR" for each of those two. SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "krg/shmem/client.h"
#include "start_members.h"

namespace {

template <class T>
T value_or_exit(krg::Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "shared_barriers: %s\n", result.error().message().c_str());
  std::exit(1);
}

// At once, and as one line among those of others.
void say(const std::string& line) {
  if (write(STDOUT_FILENO, line.data(), line.size()) < 0) std::exit(1);
}

unsigned node_in(const char* file) {
  while (true) {
    std::ifstream stream(file);
    if (unsigned node = 0; stream >> node) return node;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

int take_part(const std::string& name, unsigned self, unsigned members, unsigned rounds,
              const char* file) {
  const krg::Client client = value_or_exit(krg::Client::connect());
  const krg::SharedSet set = value_or_exit(client.open_or_create_set(name, sizeof(uint64_t)));
  const krg::SharedBarrier barrier = value_or_exit(client.join_barrier(name, members));
  unsigned passed = 0;
  for (unsigned round = 1; round <= rounds; ++round) {
    value_or_exit(set.grab({self})).as<uint64_t>() = round;
    if (!barrier.wait()) return 1;
    bool all = true;
    for (uint64_t other = 0; other < members; ++other) {
      const uint64_t seen = value_or_exit(set.get({other})).as<uint64_t>();
      all &= seen == round || seen == round + 1;
    }
    passed += all;
  }
  const std::string me = "member " + std::to_string(self);
  const unsigned node = client.node().value;
  say(me + " node " + std::to_string(node) + " rounds " + std::to_string(passed) + "\n");
  if (!file) return 0;
  if (node_in(file) == node) pause();
  for (int i = 0; i < 2; ++i) {
    const krg::Status over = barrier.wait();
    say(me + ": " + (over ? "over" : std::strerror(over.error().errno_or(0))) + "\n");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const auto members = static_cast<unsigned>(std::atoi(argv[1]));
  if (argc < 6)
    return start_members({argv[0], argv[1], argv[2], argc > 3 ? argv[3] : ""}, members) > 0;
  return take_part(argv[5], static_cast<unsigned>(std::atoi(argv[4])), members,
                   static_cast<unsigned>(std::atoi(argv[2])), *argv[3] ? argv[3] : nullptr);
}
