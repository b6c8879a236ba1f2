// Programs that use sets: clients in threads of this process, each on a node of a loopback cluster
// whose krgd parts run in another thread. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/client.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "client_wire.h"
#include "krg/runtime/control_client.h"
#include "krg/runtime/control_server.h"
#include "krg/runtime/loopback_transport.h"
#include "krg/shmem/kddm_service.h"
#include "testing/client_fixture.h"
#include "testing/sequential_consistency.h"

namespace krg {
namespace {

using namespace std::chrono_literals;

using testing::ClientTest;
using testing::error_of;

TEST_F(ClientTest, TellsWhereItRuns) {
  const Client client = connect(2);
  EXPECT_EQ(client.node(), NodeId{2});
  EXPECT_EQ(client.node_count(), kNodes);
  EXPECT_EQ(error_of(Client::connect("/tmp/krg-no-such-socket")), ENOENT);
}

TEST_F(ClientTest, ProgramsOnAllNodesCountTogether) {
  constexpr int kRounds = 50;
  std::vector<std::thread> programs;
  for (unsigned node = 0; node < kNodes; ++node)
    programs.emplace_back([node] {
      const SharedSet sums = shared(node, "sums", sizeof(uint64_t));
      for (int i = 0; i < kRounds; ++i) {
        auto sum = sums.grab({static_cast<uint64_t>(i % 3)});
        ASSERT_TRUE(sum) << sum.error().message();
        ++sum->as<uint64_t>();
      }
    });
  for (auto& program : programs) program.join();
  const SharedSet sums = shared(0, "sums", sizeof(uint64_t));
  uint64_t total = 0;
  for (uint64_t object = 0; object < 3; ++object) total += sums.get({object})->as<uint64_t>();
  EXPECT_EQ(total, uint64_t{kRounds} * kNodes);
}

TEST_F(ClientTest, ObjectsOfAllSizesArriveWhole) {
  for (size_t bytes : {8ul, 100ul, 4096ul, 200'000ul, kMaxObjectBytes}) {
    std::vector<std::byte> content(bytes);
    for (size_t i = 0; i < bytes; ++i) content[i] = static_cast<std::byte>(i * 7 + i / 251);
    const std::string name = "bytes" + std::to_string(bytes);
    ASSERT_TRUE(shared(1, name, bytes).set({1}, content));
    auto read = shared(3, name, bytes).get({1});
    ASSERT_TRUE(read);
    ASSERT_EQ(read->bytes().size(), bytes);
    EXPECT_EQ(std::memcmp(read->bytes().data(), content.data(), bytes), 0);
    auto untouched = shared(2, name, bytes).get({2});
    ASSERT_TRUE(untouched);
    EXPECT_EQ(untouched->bytes()[bytes - 1], std::byte{0});
  }
}

TEST_F(ClientTest, NamesAreOneOverTheCluster) {
  const Client one = connect(1), two = connect(2);
  EXPECT_EQ(error_of(one.open_set("set")), ENOENT);
  auto made = one.create_set("set", 64);
  ASSERT_TRUE(made);
  EXPECT_EQ(error_of(two.create_set("set", 64)), EEXIST);
  EXPECT_EQ(error_of(two.open_or_create_set("set", 128)), EINVAL);
  auto opened = two.open_set("set");
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->id(), made->id());
  EXPECT_EQ(opened->object_bytes(), 64u);
  EXPECT_EQ(error_of(one.create_set("small", 4)), EINVAL);
  EXPECT_EQ(error_of(one.create_set("large", kMaxObjectBytes + 1)), EINVAL);
  EXPECT_EQ(error_of(one.create_set("", 8)), EINVAL);
  EXPECT_EQ(error_of(one.create_set(std::string(256, 'n'), 8)), EINVAL);
}

TEST_F(ClientTest, ADestroyedSetIsGoneForEverybodyAndItsNameFree) {
  const SharedSet here = shared(0, "set", 8), there = shared(3, "set", 8);
  auto held = there.grab({1});
  held->as<uint64_t>() = 5;
  auto waiting = here.get_async({1});
  ASSERT_TRUE(shared(1, "set", 8).destroy());
  held->put();
  waiting.get().has_value();  // granted before, or EIDRM; nobody waits for ever
  EXPECT_EQ(error_of(here.get({1})), EIDRM);
  EXPECT_EQ(error_of(there.grab({1})), EIDRM);
  const SharedSet anew = shared(2, "set", 16);
  EXPECT_EQ(anew.get({1})->as<uint64_t>(), 0u);
  EXPECT_EQ(error_of(here.destroy()), EIDRM) << "not the new one";
  EXPECT_TRUE(anew.get({1}));
}

TEST_F(ClientTest, PinsKeepOthersOut) {
  const SharedSet here = shared(0, "set", 8), there = shared(1, "set", 8);
  auto reading = here.get({1});
  auto also = there.get({1});
  ASSERT_TRUE(reading && also);
  auto writing = there.grab_async({1});
  EXPECT_EQ(writing.wait_for(50ms), std::future_status::timeout);
  also->put();
  EXPECT_EQ(writing.wait_for(50ms), std::future_status::timeout);
  reading->put();
  auto written = writing.get();
  ASSERT_TRUE(written);
  written->as<uint64_t>() = 9;
  auto next = here.get_async({1});
  EXPECT_EQ(next.wait_for(50ms), std::future_status::timeout);
  *written = std::move(*there.grab({2}));  // puts object 1
  EXPECT_EQ(next.get()->as<uint64_t>(), 9u);
}

TEST_F(ClientTest, TriesAndLooksWithoutWaiting) {
  const SharedSet here = shared(0, "set", 8), there = shared(1, "set", 8);
  {
    auto written = here.grab({1});
    written->as<uint64_t>() = 3;
    EXPECT_EQ(error_of(here.try_get({1})), EAGAIN);
    EXPECT_EQ(error_of(here.try_grab({1})), EAGAIN);
  }
  EXPECT_EQ(error_of(there.find({1})), ENOENT);
  EXPECT_EQ(error_of(there.try_grab({1})), EAGAIN);
  EXPECT_EQ(here.try_grab({1})->as<uint64_t>(), 3u);
  ASSERT_TRUE(there.get({1}));
  EXPECT_EQ(there.find({1})->as<uint64_t>(), 3u);
  EXPECT_EQ(error_of(there.try_grab({1})), EAGAIN) << "others have copies";
  ASSERT_TRUE(there.flush({1}));
  EXPECT_EQ(error_of(there.find({1})), ENOENT);
  EXPECT_EQ(here.get({1})->as<uint64_t>(), 3u);
}

TEST_F(ClientTest, RemovesAndMissesObjects) {
  const SharedSet here = shared(0, "set", 8), there = shared(1, "set", 8);
  EXPECT_EQ(error_of(here.get({1}, Touch::kNoFirstTouch)), ENOENT);
  here.grab({1})->as<uint64_t>() = 4;
  EXPECT_EQ(there.get({1}, Touch::kNoFirstTouch)->as<uint64_t>(), 4u);
  ASSERT_TRUE(there.remove({1}));
  EXPECT_EQ(error_of(here.get({1}, Touch::kNoFirstTouch)), ENOENT);
  EXPECT_EQ(here.get({1})->as<uint64_t>(), 0u) << "made anew";
  EXPECT_GE(here.statistics()->gets, 3u);
}

TEST_F(ClientTest, AnAbandonedWriteLeavesTheObjectAsItWas) {
  const SharedSet set = shared(0, "set", 8);
  set.grab({1})->as<uint64_t>() = 1;
  auto pin = set.grab({1});
  pin->as<uint64_t>() = 2;
  pin->abandon();
  EXPECT_EQ(shared(2, "set", 8).get({1})->as<uint64_t>(), 1u);
}

TEST_F(ClientTest, ManyOperationsAtOnce) {
  const SharedSet set = shared(3, "set", 256);
  constexpr unsigned kCount = 2000;
  std::atomic<unsigned> granted{0};
  std::promise<void> all;
  for (uint64_t object = 0; object < kCount; ++object)
    set.grab_async({object}, Touch::kFirstTouch, [&, object](Result<WritePin> pin) {
      ASSERT_TRUE(pin) << pin.error().message();
      pin->as<uint64_t>() = object;
      pin->put();
      if (++granted == kCount) all.set_value();
    });
  ASSERT_EQ(all.get_future().wait_for(20s), std::future_status::ready);
  const SharedSet other = shared(1, "set", 256);
  for (uint64_t object = 0; object < kCount; object += 97)
    EXPECT_EQ(other.get({object})->as<uint64_t>(), object);
}

// Eight threads on four nodes, real ones: what they read and write has one order for all of them.
TEST_F(ClientTest, AccessesAreSequentiallyConsistent) {
  constexpr unsigned kThreads = 2 * kNodes, kOperations = 150, kObjects = 3;
  std::vector<std::vector<kddm::AccessHistory::Access>> accesses(kThreads);
  std::array<std::atomic<uint64_t>, kObjects> values{};
  std::vector<std::thread> threads;
  for (unsigned id = 0; id < kThreads; ++id)
    threads.emplace_back([&, id] {
      const SharedSet set = shared(id % kNodes, "set", 64);
      std::mt19937 random(id);
      for (unsigned i = 0; i < kOperations; ++i) {
        const unsigned object = static_cast<unsigned>(random() % kObjects);
        if (random() % 2 == 0) {
          const auto pin = set.get({object});
          accesses[id].push_back({id, object, pin->as<uint64_t>() + 1, 0});
        } else {
          auto pin = set.grab({object});
          const uint64_t read = pin->as<uint64_t>(), wrote = ++values[object];
          pin->as<uint64_t>() = wrote;
          accesses[id].push_back({id, object, read + 1, wrote + 1});
        }
      }
    });
  for (auto& thread : threads) thread.join();
  kddm::AccessHistory history;
  for (unsigned object = 0; object < kObjects; ++object) history.begin_object(object, 1);
  for (const auto& of_thread : accesses)
    for (const auto& access : of_thread) history.record(access);
  EXPECT_EQ(history.violation(), "");
}

TEST_F(ClientTest, NamesAndObjectsSurviveANodesDeath) {
  const SharedSet before = shared(1, "before", 8);
  before.grab({1})->as<uint64_t>() = 5;
  EXPECT_EQ(shared(2, "before", 8).get({1})->as<uint64_t>(), 5u);
  // Node 0 orders the names.
  in_loop([&] { fabric_.kill(NodeId{0}, LoopbackFabric::Death::kNoticed); });
  EXPECT_EQ(connect(3).open_set("before")->id(), before.id());
  EXPECT_EQ(error_of(connect(3).create_set("before", 8)), EEXIST);
  EXPECT_EQ(shared(3, "before", 8).get({1})->as<uint64_t>(), 5u);
  const SharedSet after = shared(2, "after", 8);
  after.grab({1})->as<uint64_t>() = 6;
  EXPECT_EQ(shared(3, "after", 8).get({1})->as<uint64_t>(), 6u);
  ASSERT_TRUE(before.destroy());
  EXPECT_EQ(error_of(connect(2).open_set("before")), ENOENT);
}

// Whatever a program writes to its socket, krgd and the other programs go on.
TEST_F(ClientTest, APacketOfNonsenseEndsThatConnectionOnly) {
  const SharedSet set = shared(1, "set", 8);
  std::mt19937 random(1);
  for (unsigned i = 0; i < 200; ++i) {
    auto control = ControlClient::connect(path(1));
    ASSERT_TRUE(control);
    auto answer = control->call(client_wire::kConnectCommand);
    ASSERT_TRUE(answer);
    for (unsigned packet = 0; packet < 5; ++packet) {
      client_wire::ClientRequest request{.op = static_cast<client_wire::Op>(random() % 16),
                                         .flag = static_cast<uint8_t>(random() % 6),
                                         .call = random(),
                                         .set = random() % 2 ? set.id().value : random(),
                                         .object = random() % 4,
                                         .pin = random() % 4};
      if (random() % 10 == 0) request.version = 77;
      std::string bytes(reinterpret_cast<const char*>(&request), sizeof request);
      bytes.resize(random() % 3 ? bytes.size() + random() % 300 : random() % 60, 'x');
      if (!send_packet(answer->fds[0].get(), bytes)) break;
    }
  }
  for (uint64_t object = 0; object < 4; ++object)
    EXPECT_TRUE(set.grab({object}));  // nobody holds on to anything
}

TEST_F(ClientTest, WhoDoesNotReadItsRepliesIsLetGo) {
  auto control = ControlClient::connect(path(1));
  ASSERT_TRUE(control);
  auto answer = control->call(client_wire::kConnectCommand);
  ASSERT_TRUE(answer);
  const client_wire::ClientRequest request;
  bool sent = true;
  for (size_t i = 0; i < 2 * kMaxClientReplies && sent; ++i)
    sent =
        send_packet(answer->fds[0].get(), {reinterpret_cast<const char*>(&request), sizeof request})
            .has_value();
  EXPECT_FALSE(sent) << "krgd has closed its end";
  EXPECT_EQ(clients_of(1), 0u);
  EXPECT_TRUE(shared(1, "set", 8).get({1}));
}

// Its own operations may be waiting behind its own pins.
TEST_F(ClientTest, AConnectionThatEndsLetsGoOfWhatItIsGrantedMeanwhile) {
  constexpr uint64_t kObjects = 20;
  const pid_t program = fork();
  if (program == 0) {
    const SharedSet set = shared(1, "set", 8);
    std::vector<Result<WritePin>> held;
    for (uint64_t object = 0; object < kObjects; ++object) held.push_back(set.grab({object}));
    for (uint64_t object = 0; object < kObjects; ++object)
      set.grab_async({object}, Touch::kFirstTouch, [](Result<WritePin>) {});
    set.sync().has_value();
    _exit(0);
  }
  waitpid(program, nullptr, 0);
  const SharedSet other = shared(0, "set", 8);
  for (uint64_t object = 0; object < kObjects; ++object)
    ASSERT_EQ(other.grab_async({object}).wait_for(10s), std::future_status::ready) << object;
}

// None that does not keep what it is granted is granted it inside of the one before.
TEST_F(ClientTest, ThousandsMayWaitForAnObject) {
  constexpr unsigned kMany = 12'000;
  const SharedSet set = shared(1, "set", 8);
  auto held = set.grab({1});
  std::vector<std::future<Status>> sets;
  const std::array<std::byte, 8> content{std::byte{7}};
  for (unsigned i = 0; i < kMany; ++i) sets.push_back(set.set_async({1}, content));
  const pid_t program = fork();
  if (program == 0) {
    const SharedSet mine = shared(1, "set", 8);
    for (unsigned i = 0; i < kMany; ++i)
      mine.grab_async({1}, Touch::kFirstTouch, [](const Result<WritePin>&) {});
    _exit(!mine.sync());
  }
  int status = -1;
  waitpid(program, &status, 0);
  EXPECT_EQ(status, 0);
  held->put();
  for (auto& one : sets) EXPECT_EQ(error_of(one.get()), 0);
  EXPECT_EQ(shared(0, "set", 8).get({1})->as<uint64_t>(), 7u);
}

TEST_F(ClientTest, AForksChildLeavesItsParentsPinsAlone) {
  const SharedSet other = shared(1, "set", 8);
  const pid_t child = [&] {
    const SharedSet set = shared(0, "set", 8);
    auto pin = set.grab({1});
    pin->as<uint64_t>() = 7;
    const pid_t forked = fork();
    if (forked == 0) {
      const bool refused = error_of(set.get({2})) == ECONNRESET;
      pin->put();
      if (!refused) _exit(1);
    } else {
      int status = -1;
      EXPECT_EQ(waitpid(forked, &status, 0), forked);
      EXPECT_EQ(status, 0);
      EXPECT_EQ(error_of(other.try_get({1})), EAGAIN) << "still pinned";
      EXPECT_TRUE(set.get({2})) << "still connected";
    }
    return forked;
  }();  // the child, too, has destroyed its handles
  if (child == 0) _exit(0);
  EXPECT_EQ(other.get({1})->as<uint64_t>(), 7u);
}

TEST_F(ClientTest, AKilledProgramLetsGoOfWhatItHeld) {
  const SharedSet set = shared(1, "set", 8);
  set.grab({1})->as<uint64_t>() = 1;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t program = fork();
  if (program == 0) {
    const SharedSet mine = shared(2, "set", 8);
    auto pin = mine.grab({1});
    pin->as<uint64_t>() = 99;
    auto waits = mine.grab_async({1});
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  close(ready[1]);
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  close(ready[0]);
  EXPECT_EQ(clients_of(2), 1u);
  auto after = set.get_async({1});
  EXPECT_EQ(after.wait_for(50ms), std::future_status::timeout);
  kill(program, SIGKILL);
  waitpid(program, nullptr, 0);
  ASSERT_EQ(after.wait_for(10s), std::future_status::ready);
  EXPECT_EQ(after.get()->as<uint64_t>(), 1u) << "what it had not put is dropped";
  EXPECT_EQ(clients_of(2), 0u);
}

SharedBarrier joined(const Client& client, unsigned members) {
  auto barrier = client.join_barrier("barrier", members);
  check(barrier.has_value(), "the barrier is joined");
  return std::move(*barrier);
}

TEST_F(ClientTest, NobodyPassesABarrierBeforeAllHaveCome) {
  constexpr unsigned kRounds = 60;
  // On all nodes, on some, on one; one or two members on each.
  for (const std::vector<unsigned>& nodes :
       {std::vector<unsigned>{0, 1, 2, 3}, {1, 2, 3}, {2, 0}, {3}, {0, 0, 1, 1, 3}}) {
    const auto members = static_cast<unsigned>(nodes.size());
    std::atomic<unsigned> come = 0;
    std::vector<std::thread> programs;
    for (unsigned i = 0; i < members; ++i)
      programs.emplace_back([&, i] {
        const Client client = connect(nodes[i]);
        const SharedSet set = *client.open_or_create_set("set", 8);
        const SharedBarrier barrier = joined(client, members);
        for (unsigned round = 1; round <= kRounds; ++round) {
          set.grab({i})->as<uint64_t>() = round;
          ++come;
          ASSERT_TRUE(barrier.wait());
          EXPECT_GE(come, round * members);
          EXPECT_LT(come, (round + 1) * members) << "nobody is two rounds ahead";
          EXPECT_GE(set.get({(i + 1) % members})->as<uint64_t>(), round)
              << "put before the barrier";
        }
      });
    for (auto& program : programs) program.join();
    EXPECT_EQ(come, kRounds * members);
  }
}

TEST_F(ClientTest, WhoLeavesABarrierEndsItAfterItsLastRound) {
  std::vector<Client> clients;
  for (unsigned node = 0; node < 3; ++node) clients.push_back(connect(node));
  std::vector<std::future<SharedBarrier>> joining;
  for (const Client& client : clients)
    joining.push_back(std::async(std::launch::async, [&client] { return joined(client, 3); }));
  std::vector<SharedBarrier> members;
  for (auto& one : joining) members.push_back(one.get());

  auto first = members[0].wait_async();
  auto second = members[1].wait_async();
  EXPECT_EQ(error_of(members[1].wait()), EBUSY);
  EXPECT_EQ(first.wait_for(30ms), std::future_status::timeout);
  members[2].wait_async();  // has come, and goes before it hears of the others
  members[2].leave();
  EXPECT_EQ(error_of(first.get()), 0);
  EXPECT_EQ(error_of(second.get()), 0);
  EXPECT_EQ(error_of(members[0].wait()), EOWNERDEAD);
  EXPECT_EQ(error_of(members[1].wait()), EOWNERDEAD);
  EXPECT_EQ(error_of(members[1].wait()), EOWNERDEAD);
}

TEST_F(ClientTest, WhoDiesBeforeABarrierEndsItForTheOthers) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t program = fork();
  if (program == 0) {
    const SharedBarrier mine = joined(connect(2), 2);
    if (!mine.wait() || write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  const SharedBarrier barrier = joined(connect(1), 2);
  EXPECT_EQ(error_of(barrier.wait()), 0);
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  auto waiting = barrier.wait_async();
  EXPECT_EQ(waiting.wait_for(30ms), std::future_status::timeout);
  kill(program, SIGKILL);
  waitpid(program, nullptr, 0);
  EXPECT_EQ(error_of(waiting.get()), EOWNERDEAD);
  close(ready[0]);
  close(ready[1]);
}

TEST_F(ClientTest, ABarrierIsJoinedByAsManyAsAllSay) {
  const Client one = connect(1), other = connect(2);
  EXPECT_EQ(error_of(one.join_barrier("", 2)), EINVAL);
  EXPECT_EQ(error_of(one.join_barrier(std::string(256, 'n'), 2)), EINVAL);
  EXPECT_EQ(error_of(one.join_barrier("barrier", 0)), EINVAL);

  auto waits = std::async(std::launch::async, [] { return connect(3).join_barrier("barrier", 2); });
  int error = 0;  // until it has asked, whoever says another number waits for others who say it
  while (error != EINVAL) {
    auto wrong = std::async(std::launch::async, [&] { return one.join_barrier("barrier", 1); });
    error = error_of(wrong.get());
  }
  const SharedBarrier barrier = joined(other, 2);
  const SharedBarrier second = std::move(*waits.get());
  auto coming = second.wait_async();
  EXPECT_EQ(error_of(barrier.wait()), 0);
  EXPECT_EQ(error_of(coming.get()), 0);
}

TEST_F(ClientTest, WhoJoinsWithOneThatGoesIsToldSo) {
  auto waits = std::async(std::launch::async, [] { return connect(1).join_barrier("barrier", 3); });
  // Some of these may not have joined yet when they are killed.
  do {
    const pid_t program = fork();
    if (program == 0) _exit(connect(2).join_barrier("barrier", 3).has_value());
    std::this_thread::sleep_for(20ms);
    kill(program, SIGKILL);
    waitpid(program, nullptr, 0);
  } while (waits.wait_for(20ms) != std::future_status::ready);
  EXPECT_EQ(error_of(waits.get()), EOWNERDEAD);
}

TEST_F(ClientTest, ALostNodeEndsTheBarriersOfItsMembers) {
  for (const unsigned lost : {3u, 0u}) {  // node 0 has formed the barriers
    std::vector<std::thread> programs;
    std::atomic<unsigned> in_round = 0;
    std::atomic<bool> dies = false;
    for (const unsigned node : {0u, 1u, 2u, 3u}) {
      if (node == 3 && lost == 0) continue;  // dead by then
      programs.emplace_back([&, node] {
        const SharedBarrier barrier = joined(connect(node), lost == 0 ? 3 : 4);
        EXPECT_EQ(error_of(barrier.wait()), 0);
        ++in_round;
        if (node == lost) {
          while (!dies) std::this_thread::sleep_for(1ms);
          return;
        }
        EXPECT_EQ(error_of(barrier.wait()), EOWNERDEAD);
        EXPECT_EQ(error_of(barrier.wait()), EOWNERDEAD);
      });
    }
    while (in_round < programs.size()) std::this_thread::sleep_for(1ms);
    in_loop([&] {
      fabric_.kill(NodeId{static_cast<uint16_t>(lost)}, LoopbackFabric::Death::kNoticed);
    });
    dies = true;
    for (auto& program : programs) program.join();
  }
}

TEST_F(ClientTest, NeighboursThatAreAskedForAtOnceAreEachItself) {
  const SharedSet set = shared(1, "set", 8), other = shared(2, "set", 8);
  constexpr uint64_t kObjects = 300;
  std::vector<std::future<Result<WritePin>>> grabs;
  for (uint64_t i = 0; i < kObjects; ++i) grabs.push_back(other.grab_async({i}));
  for (uint64_t i = 0; i < kObjects; ++i) grabs[i].get()->as<uint64_t>() = i;
  // Forward, with gaps and a grab among them; one does not exist.
  std::vector<std::future<Result<ReadPin>>> gets;
  std::vector<std::future<Result<WritePin>>> again;
  for (uint64_t i = 0; i < kObjects; ++i) {
    if (i % 7 == 0) again.push_back(set.grab_async({i}));
    if (i % 7 != 0) gets.push_back(set.get_async({i}));
  }
  auto missing = set.get_async({kObjects}, Touch::kNoFirstTouch);
  for (uint64_t i = 0; i < kObjects; ++i) {
    if (i % 7 == 0)
      EXPECT_EQ(again[i / 7].get()->as<uint64_t>(), i);
    else
      EXPECT_EQ(gets[i - i / 7 - 1].get()->as<uint64_t>(), i);
  }
  EXPECT_EQ(error_of(missing.get()), ENOENT);
}

TEST_F(ClientTest, TheLastPinMayGoInACallback) {
  std::promise<uint64_t> seen;
  {
    const SharedSet set = shared(0, "set", 8);
    set.get_async({1}, Touch::kFirstTouch,
                  [&](Result<ReadPin> pin) { seen.set_value(pin->as<uint64_t>()); });
  }
  EXPECT_EQ(seen.get_future().get(), 0u);
}

TEST_F(ClientTest, SaysWhenKrgdHasGone) {
  const SharedSet set = shared(0, "set", 8), other = shared(1, "set", 8);
  auto held = other.grab({1});
  auto waiting = set.get_async({1});
  in_loop([&] { nodes_[0].reset(); });
  EXPECT_EQ(error_of(waiting.get()), ECONNRESET);
  EXPECT_EQ(error_of(set.get({2})), ECONNRESET);
}

}  // namespace
}  // namespace krg
