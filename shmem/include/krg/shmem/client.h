// The KDDM of a program that runs under krgrun: sets of objects that all of the session's programs
// share, on whichever nodes they run.
//
//   auto client = krg::Client::connect();
//   auto sums = client->open_or_create_set("sums", sizeof(long));
//   {
//     auto sum = sums->grab({7});         // nobody else has object 7 now
//     sum->as<long>() += 1;
//   }                                     // put: everybody sees it
//
// A set has a name and objects of one size, 8 bytes to 4 MiB; an object that nobody has touched is
// made of zeros. A pin for reading keeps writers out, a pin for writing keeps everybody out, on all
// nodes: pins are locks as well. All operations of all programs together are sequentially
// consistent. When a program dies, its pins are put; what it was writing is dropped.
//
// Neighbours are pinned together, one behind the other, by one request:
//
//   auto rows = matrix->get_range({first}, 64);   // objects first to first + 63
//   for (double x : rows->as<double>()) sum += x;
//
// Who holds a pin while it waits for another one waits for ever for who does so the other way
// round. A range is taken in ascending order, and holds nothing above an object that it waits for:
// programs whose ranges overlap never wait for each other for ever, nor do they and programs that
// pin one object after the other upwards. (Several get_async() or grab_async() at once pin in any
// order.) Who holds pins of a set while it asks for more keeps to that order, too.
//
// A member of a barrier waits for the others:
//
//   auto phases = client->join_barrier("phases", 4);  // returns when four have joined
//   phases->wait();                                   // returns when all four have come here
//
// Threads: everything here may be used by any thread, but one pin by one thread at a time.
// Callbacks run in a thread of the client, one after the other; they must not wait for another
// operation (futures, and the calls that return what they got, wait), and may start some. A child
// of fork() must connect anew. Errors, of every operation: ECONNRESET (krgd has gone), EIDRM (the
// set was destroyed). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"
#include "krg/shmem/ids.h"

namespace krg {

class ClientConnection;  // private to the library

// An object that is pinned; movable. Put when it goes, or by put().
class Pin {
 public:
  Pin(Pin&& other) noexcept = default;
  Pin& operator=(Pin&& other) noexcept;
  ~Pin() { put(); }
  // Ends the pin; the bytes must not be used any more.
  void put();

 protected:
  friend class ClientConnection;
  Pin(std::shared_ptr<ClientConnection> connection, uint64_t id, std::span<std::byte> bytes,
      bool writing)
      : connection_(std::move(connection)), id_(id), bytes_(bytes), writing_(writing) {}
  void end(bool store);

  std::shared_ptr<ClientConnection> connection_;  // none: put
  uint64_t id_;
  std::span<std::byte> bytes_;
  bool writing_;
};

class ReadPin : public Pin {
 public:
  std::span<const std::byte> bytes() const { return bytes_; }
  // The object's first bytes as a T. REQUIRES: objects are as large.
  template <class T>
  const T& as() const {
    static_assert(std::is_trivially_copyable_v<T>);
    check(sizeof(T) <= bytes_.size(), "an object is as large as what it is used as");
    return *reinterpret_cast<const T*>(bytes_.data());
  }

 private:
  friend class ClientConnection;
  using Pin::Pin;
};

class WritePin : public Pin {
 public:
  std::span<std::byte> bytes() const { return bytes_; }
  template <class T>
  T& as() const {
    static_assert(std::is_trivially_copyable_v<T>);
    check(sizeof(T) <= bytes_.size(), "an object is as large as what it is used as");
    return *reinterpret_cast<T*>(bytes_.data());
  }
  // Ends the pin and leaves the object as it was.
  void abandon() { end(false); }

 private:
  friend class ClientConnection;
  using Pin::Pin;
};

// Neighbours that are pinned together and put together; so many at the most.
inline constexpr size_t kMaxRangeObjects = 16384;
inline constexpr size_t kMaxRangeBytes = 64u << 20;

class ReadRange : public Pin {
 public:
  // The objects', one behind the other.
  std::span<const std::byte> bytes() const { return bytes_; }
  size_t count() const { return bytes_.size() / object_bytes_; }
  // Those of the `index`-th object. REQUIRES: there are more objects.
  std::span<const std::byte> object(size_t index) const {
    check(index < count(), "an object of the range");
    return bytes_.subspan(index * object_bytes_, object_bytes_);
  }
  // All bytes as an array of T; a rest that is smaller than a T is left out.
  template <class T>
  std::span<const T> as() const {
    static_assert(std::is_trivially_copyable_v<T>);
    return {reinterpret_cast<const T*>(bytes_.data()), bytes_.size() / sizeof(T)};
  }

 private:
  friend class ClientConnection;
  ReadRange(Pin pin, size_t object_bytes) : Pin(std::move(pin)), object_bytes_(object_bytes) {}

  size_t object_bytes_;
};

class WriteRange : public Pin {
 public:
  std::span<std::byte> bytes() const { return bytes_; }
  size_t count() const { return bytes_.size() / object_bytes_; }
  std::span<std::byte> object(size_t index) const {
    check(index < count(), "an object of the range");
    return bytes_.subspan(index * object_bytes_, object_bytes_);
  }
  template <class T>
  std::span<T> as() const {
    static_assert(std::is_trivially_copyable_v<T>);
    return {reinterpret_cast<T*>(bytes_.data()), bytes_.size() / sizeof(T)};
  }
  // Ends the pin and leaves the objects as they were.
  void abandon() { end(false); }

 private:
  friend class ClientConnection;
  WriteRange(Pin pin, size_t object_bytes) : Pin(std::move(pin)), object_bytes_(object_bytes) {}

  size_t object_bytes_;
};

// Counted on this program's node, for all of its programs, since the set was made.
struct SetStatistics {
  uint64_t gets = 0;
  uint64_t grabs = 0;
  uint64_t local_hits = 0;  // granted without a message to another node
  uint64_t bytes_sent = 0;
  uint64_t objects_here = 0;
};

enum class Touch : uint8_t {
  kFirstTouch,    // an object that does not exist is made
  kNoFirstTouch,  // ENOENT says that it does not exist
};

// A set; a handle that may be copied. It keeps the client's connection.
class SharedSet {
 public:
  SetId id() const { return id_; }
  size_t object_bytes() const { return object_bytes_; }

  // Errors: ENOENT (kNoFirstTouch), EOWNERDEAD (its last copy went with a node), ENOBUFS (the
  // program has more than 1 GiB pinned).
  Result<ReadPin> get(ObjectId object, Touch touch = Touch::kFirstTouch) const;
  Result<WritePin> grab(ObjectId object, Touch touch = Touch::kFirstTouch) const;
  // All `count` objects from `first` on, at one time: what one writer has put as a range, readers
  // of ranges see whole. Errors: those of get() and grab(), of any of the objects (then none is
  // pinned); EINVAL (count is 0, or more than kMaxRangeObjects or kMaxRangeBytes; `first` is too
  // near to the last number).
  Result<ReadRange> get_range(ObjectId first, size_t count, Touch touch = Touch::kFirstTouch) const;
  Result<WriteRange> grab_range(ObjectId first, size_t count,
                                Touch touch = Touch::kFirstTouch) const;
  // Only if that takes neither a message to another node nor a wait; else EAGAIN.
  Result<ReadPin> try_get(ObjectId object) const;
  Result<WritePin> try_grab(ObjectId object) const;
  // Only if a valid copy is in this node's memory; else ENOENT.
  Result<ReadPin> find(ObjectId object) const;
  // The object's new content. REQUIRES: as many bytes as an object has.
  Status set(ObjectId object, std::span<const std::byte> content) const;
  // The object is gone on all nodes. Waits until nobody has it pinned.
  Status remove(ObjectId object) const;
  // Wins memory back on this node: drops a copy, or gives the object to another node. Does nothing
  // to an object that is in use. Errors: ENODEV (there is no other node).
  Status flush(ObjectId object) const;
  // Returns when all that this program did before (puts too) is done on its node.
  Status sync() const;
  // The set goes, on all nodes, and its name is free. Pins that programs still have end.
  Status destroy() const;
  Result<SetStatistics> statistics() const;

  template <class Pin>
  using Granted = std::function<void(Result<Pin>)>;
  std::future<Result<ReadPin>> get_async(ObjectId object, Touch touch = Touch::kFirstTouch) const;
  std::future<Result<WritePin>> grab_async(ObjectId object, Touch touch = Touch::kFirstTouch) const;
  std::future<Result<ReadRange>> get_range_async(ObjectId first, size_t count,
                                                 Touch touch = Touch::kFirstTouch) const;
  std::future<Result<WriteRange>> grab_range_async(ObjectId first, size_t count,
                                                   Touch touch = Touch::kFirstTouch) const;
  std::future<Status> set_async(ObjectId object, std::span<const std::byte> content) const;
  std::future<Status> remove_async(ObjectId object) const;
  void get_async(ObjectId object, Touch touch, Granted<ReadPin> granted) const;
  void grab_async(ObjectId object, Touch touch, Granted<WritePin> granted) const;
  void get_range_async(ObjectId first, size_t count, Touch touch, Granted<ReadRange> granted) const;
  void grab_range_async(ObjectId first, size_t count, Touch touch,
                        Granted<WriteRange> granted) const;
  void remove_async(ObjectId object, std::function<void(Status)> done) const;

 private:
  friend class Client;
  SharedSet(std::shared_ptr<ClientConnection> connection, std::string name, SetId id,
            size_t object_bytes)
      : connection_(std::move(connection)),
        name_(std::move(name)),
        id_(id),
        object_bytes_(object_bytes) {}

  std::shared_ptr<ClientConnection> connection_;
  std::string name_;
  SetId id_;
  size_t object_bytes_;
};

// A member of a barrier; movable. It leaves when it goes. Who waits need not flush anything: what a
// member put before it came to the barrier is what the others see behind it.
class SharedBarrier {
 public:
  SharedBarrier(SharedBarrier&& other) noexcept = default;
  SharedBarrier& operator=(SharedBarrier&& other) noexcept;
  ~SharedBarrier() { leave(); }

  // Returns when every member has called it as often as this one. Errors: EOWNERDEAD (a member went
  // before it came, or a node that has members died; so it is from now on), EBUSY (another thread
  // waits for this member).
  Status wait() const;
  std::future<Status> wait_async() const;
  // Not a member any more: the others get EOWNERDEAD from the next round on.
  void leave();

 private:
  friend class Client;
  SharedBarrier(std::shared_ptr<ClientConnection> connection, uint64_t member)
      : connection_(std::move(connection)), member_(member) {}

  std::shared_ptr<ClientConnection> connection_;  // none: left
  uint64_t member_;
};

class Client {
 public:
  // Connects to the krgd of this program's node ($KRG_CONTROL). Errors: ENOENT outside of a
  // session.
  static Result<Client> connect();
  // Connects to the krgd that listens at `control_path`.
  static Result<Client> connect(const std::string& control_path);

  NodeId node() const;          // where this program runs
  unsigned node_count() const;  // of the cluster

  // Errors: EEXIST (create), ENOENT (open), EINVAL (object_bytes; open_or_create: the set has
  // objects of another size; a name of 0 or more than 255 bytes).
  Result<SharedSet> create_set(std::string_view name, size_t object_bytes) const;
  Result<SharedSet> open_set(std::string_view name) const;
  Result<SharedSet> open_or_create_set(std::string_view name, size_t object_bytes) const;

  // Becomes one of the `members` of a barrier; returns when there are that many, in programs on
  // whichever nodes. The name is free again then. Errors: EINVAL (a name of 0 or more than 255
  // bytes; 0 members or more than 2^20; others join with another number), EOWNERDEAD (one that had
  // joined went, or a node died: all have to join anew).
  Result<SharedBarrier> join_barrier(std::string_view name, unsigned members) const;

 private:
  explicit Client(std::shared_ptr<ClientConnection> connection)
      : connection_(std::move(connection)) {}
  Result<SharedSet> name_set(uint8_t verb, std::string_view name, size_t object_bytes) const;

  std::shared_ptr<ClientConnection> connection_;
};

}  // namespace krg
