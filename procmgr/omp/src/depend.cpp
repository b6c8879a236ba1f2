// Dependences among the children of one task. For each address that they name there is a list of
// records, newest first: one for each unfinished task that named it. A task that reads waits for
// the newest writer before it, one that writes for all records up to and including the newest
// writer before it; what is older is finished or waited for by those. mutexinoutset counts as
// writing, which orders the tasks; OpenMP allows any order.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstring>
#include <new>

#include "team.h"

namespace krg::omp {

struct DependAddress;

struct DependRecord {
  Task* task = nullptr;
  bool writes = false;
  DependAddress* address = nullptr;
  DependRecord* older = nullptr;
  DependRecord* newer = nullptr;
  DependRecord* next_of_task = nullptr;
};

struct DependAddress {
  void* address = nullptr;
  DependRecord* newest = nullptr;
  DependAddress* next = nullptr;  // in the bucket
};

struct DependTable {
  static constexpr unsigned kBuckets = 256;
  DependAddress* buckets[kBuckets] = {};
};

namespace {

struct Named {
  void* address;
  bool writes;
};

// The i-th item of a depend array, in either of its two forms.
//   before OpenMP 5.0: count, writers, then addresses, writers first
//   since: 0, count, writers (out and inout), mutexinoutsets, ins, then addresses in this order,
//   then depend objects
unsigned items_of(void** depend) {
  return unsigned(std::uintptr_t(depend[0] != nullptr ? depend[0] : depend[1]));
}
Named item_of(void** depend, unsigned i) {
  if (depend[0] != nullptr) return {depend[2 + i], i < std::uintptr_t(depend[1])};
  const auto writers = std::uintptr_t(depend[2]) + std::uintptr_t(depend[3]);
  const auto plain = writers + std::uintptr_t(depend[4]);
  if (i < plain) return {depend[5 + i], i < writers};
  auto** object = static_cast<void**>(depend[5 + i]);
  return {object[0], std::uintptr_t(object[1]) != kDependIn};
}

DependAddress& find(Thread& thread, DependTable& table, void* address) {
  const auto key = reinterpret_cast<std::uintptr_t>(address);
  DependAddress*& bucket =
      table.buckets[(key >> 3 ^ key >> 11 ^ key >> 19) % DependTable::kBuckets];
  for (DependAddress* entry = bucket; entry != nullptr; entry = entry->next) {
    if (entry->address == address) return *entry;
  }
  auto* entry = new (thread.blocks.allocate(Side::node, sizeof(DependAddress))) DependAddress;
  entry->address = address;
  entry->next = bucket;
  bucket = entry;
  return *entry;
}

void wait_for(Thread& thread, Task& task, Task& before) {
  auto* successor = new (thread.blocks.allocate(Side::node, sizeof(Successor))) Successor;
  successor->task = &task;
  successor->next = before.successors;
  before.successors = successor;
  task.predecessors.fetch_add(1, std::memory_order_relaxed);
}

void wait_for_records(Thread& thread, Task& task, const DependAddress& entry, bool writes) {
  for (DependRecord* record = entry.newest; record != nullptr; record = record->older) {
    if (record->task == &task) continue;
    if (writes || record->writes) wait_for(thread, task, *record->task);
    if (record->writes) return;
  }
}

void add_record(Thread& thread, Task& task, DependAddress& entry, bool writes) {
  auto* record = new (thread.blocks.allocate(Side::node, sizeof(DependRecord))) DependRecord;
  record->task = &task;
  record->writes = writes;
  record->address = &entry;
  record->older = entry.newest;
  if (entry.newest != nullptr) entry.newest->newer = record;
  entry.newest = record;
  record->next_of_task = task.records;
  task.records = record;
}

}  // namespace

bool add_dependences(Thread& thread, Task& task, void** depend, bool remember) {
  Task& parent = *task.parent;
  if (parent.depends == nullptr) {
    if (!remember) return false;
    parent.depends = new (thread.blocks.allocate(Side::node, sizeof(DependTable))) DependTable;
  }
  const unsigned items = items_of(depend);
  for (unsigned i = 0; i < items; ++i) {
    const Named named = item_of(depend, i);
    if (named.address == nullptr) continue;
    DependAddress& entry = find(thread, *parent.depends, named.address);
    wait_for_records(thread, task, entry, named.writes);
    if (remember) add_record(thread, task, entry, named.writes);
  }
  return task.predecessors.load(std::memory_order_relaxed) != 0;
}

void remove_dependences(Thread& thread, Task& task) {
  while (DependRecord* record = task.records) {
    task.records = record->next_of_task;
    (record->newer != nullptr ? record->newer->older : record->address->newest) = record->older;
    if (record->older != nullptr) record->older->newer = record->newer;
    thread.blocks.free(Side::node, record, sizeof *record);
  }
}

void drop_depend_table(Thread& thread, Task& parent) {
  for (DependAddress*& bucket : parent.depends->buckets) {
    while (DependAddress* entry = bucket) {
      bucket = entry->next;
      thread.blocks.free(Side::node, entry, sizeof *entry);
    }
  }
  thread.blocks.free(Side::node, parent.depends, sizeof(DependTable));
  parent.depends = nullptr;
}

}  // namespace krg::omp
