// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/client.h"

#include <cstdlib>
#include <cstring>

#include "client_connection.h"
#include "krg/shmem/kddm.h"
#include "set_names.h"

namespace krg {
namespace {

using client_wire::Op;
using Request = ClientConnection::Request;
using Answer = ClientConnection::Answer;
using Connection = std::shared_ptr<ClientConnection>;

Request request_for(Op op, SetId set, ObjectId object, Touch touch = Touch::kFirstTouch) {
  return {.op = op,
          .flag = static_cast<uint8_t>(touch == Touch::kFirstTouch),
          .set = set.value,
          .object = object.value};
}

Request request_for_range(Op op, SetId set, ObjectId first, size_t count, Touch touch) {
  Request request = request_for(op, set, first, touch);
  request.pin = count;
  return request;
}

// `bytes`: an object's; `count`: a range's objects.
template <class T>
T make_pin(const Connection& connection, const client_wire::ClientReply& reply, size_t bytes,
           size_t count) {
  if constexpr (std::is_same_v<T, ReadPin>) {
    return connection->read_pin(reply, bytes);
  } else if constexpr (std::is_same_v<T, WritePin>) {
    return connection->write_pin(reply, bytes);
  } else if constexpr (std::is_same_v<T, ReadRange>) {
    return connection->read_range(reply, bytes, count);
  } else {
    return connection->write_range(reply, bytes, count);
  }
}

template <class T>
Result<T> wait_for_pin(const Connection& connection, size_t bytes, const Request& request) {
  auto reply = connection->call(request);
  if (!reply) return reply.error();
  return make_pin<T>(connection, *reply, bytes, request.pin);
}

template <class T>
void start_pin(const Connection& connection, size_t bytes, const Request& request,
               std::function<void(Result<T>)> granted) {
  connection->start(request, {},
                    [connection, bytes, count = request.pin,
                     granted = std::move(granted)](Result<Answer> answer) {
                      if (!answer) return granted(answer.error());
                      granted(make_pin<T>(connection, answer->reply, bytes, count));
                    });
}

// A callback that fulfils a promise, and the promise's future.
template <class T>
std::pair<std::function<void(T)>, std::future<T>> promised() {
  auto promise = std::make_shared<std::promise<T>>();
  auto future = promise->get_future();
  return {[promise](T value) { promise->set_value(std::move(value)); }, std::move(future)};
}

void start_status(const Connection& connection, const Request& request, std::string_view payload,
                  std::function<void(Status)> done) {
  connection->start(request, payload, [done = std::move(done)](Result<Answer> answer) {
    done(answer ? Status() : Status(answer.error()));
  });
}

Status wait_for_status(const Connection& connection, const Request& request,
                       std::string_view payload = {}) {
  auto reply = connection->call(request, payload);
  return reply ? Status() : Status(reply.error());
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

Result<Client> Client::connect() {
  const char* path = std::getenv("KRG_CONTROL");
  if (!path)
    return errno_error("this process does not run in a session (KRG_CONTROL is not set)", ENOENT);
  return connect(path);
}

Result<Client> Client::connect(const std::string& control_path) {
  auto connection = ClientConnection::connect(control_path);
  if (!connection) return connection.error();
  return Client(std::move(*connection));
}

NodeId Client::node() const {
  return connection_->node();
}
unsigned Client::node_count() const {
  return connection_->node_count();
}

Result<SharedSet> Client::name_set(uint8_t verb, std::string_view name, size_t object_bytes) const {
  auto reply = connection_->call({.op = Op::kName, .flag = verb, .object = object_bytes},
                                 name.substr(0, 4096));
  if (!reply) return reply.error();
  return SharedSet(connection_, std::string(name), {reply->set}, reply->object_bytes);
}

Result<SharedSet> Client::create_set(std::string_view name, size_t object_bytes) const {
  return name_set(static_cast<uint8_t>(SetNames::Verb::kCreate), name, object_bytes);
}
Result<SharedSet> Client::open_set(std::string_view name) const {
  return name_set(static_cast<uint8_t>(SetNames::Verb::kOpen), name, 0);
}
Result<SharedSet> Client::open_or_create_set(std::string_view name, size_t object_bytes) const {
  return name_set(static_cast<uint8_t>(SetNames::Verb::kOpenOrCreate), name, object_bytes);
}

Result<SharedBarrier> Client::join_barrier(std::string_view name, unsigned members) const {
  auto reply = connection_->call({.op = Op::kJoinBarrier, .object = members}, name.substr(0, 4096));
  if (!reply) return reply.error();
  return SharedBarrier(connection_, reply->pin);
}

SharedBarrier& SharedBarrier::operator=(SharedBarrier&& other) noexcept {
  if (this == &other) return *this;
  leave();
  connection_ = std::move(other.connection_);
  member_ = other.member_;
  return *this;
}

Status SharedBarrier::wait() const {
  return wait_for_status(connection_, {.op = Op::kWaitBarrier, .pin = member_});
}

std::future<Status> SharedBarrier::wait_async() const {
  auto [done, future] = promised<Status>();
  start_status(connection_, {.op = Op::kWaitBarrier, .pin = member_}, {}, std::move(done));
  return std::move(future);
}

void SharedBarrier::leave() {
  if (auto connection = std::exchange(connection_, nullptr))
    connection->tell({.op = Op::kLeaveBarrier, .pin = member_});
}

Result<ReadPin> SharedSet::get(ObjectId object, Touch touch) const {
  return wait_for_pin<ReadPin>(connection_, object_bytes_,
                               request_for(Op::kGet, id_, object, touch));
}
Result<WritePin> SharedSet::grab(ObjectId object, Touch touch) const {
  return wait_for_pin<WritePin>(connection_, object_bytes_,
                                request_for(Op::kGrab, id_, object, touch));
}
Result<ReadRange> SharedSet::get_range(ObjectId first, size_t count, Touch touch) const {
  return wait_for_pin<ReadRange>(connection_, object_bytes_,
                                 request_for_range(Op::kGetRange, id_, first, count, touch));
}
Result<WriteRange> SharedSet::grab_range(ObjectId first, size_t count, Touch touch) const {
  return wait_for_pin<WriteRange>(connection_, object_bytes_,
                                  request_for_range(Op::kGrabRange, id_, first, count, touch));
}
Result<ReadPin> SharedSet::try_get(ObjectId object) const {
  return wait_for_pin<ReadPin>(connection_, object_bytes_, request_for(Op::kTryGet, id_, object));
}
Result<WritePin> SharedSet::try_grab(ObjectId object) const {
  return wait_for_pin<WritePin>(connection_, object_bytes_, request_for(Op::kTryGrab, id_, object));
}

Result<ReadPin> SharedSet::find(ObjectId object) const {
  auto found = try_get(object);
  if (!found && found.error().errno_or(0) == EAGAIN)
    return errno_error("no valid copy of the object is here", ENOENT);
  return found;
}

Status SharedSet::set(ObjectId object, std::span<const std::byte> content) const {
  return set_async(object, content).get();
}

std::future<Status> SharedSet::set_async(ObjectId object,
                                         std::span<const std::byte> content) const {
  check(content.size() == object_bytes_, "set() replaces all of an object");
  auto [done, future] = promised<Status>();
  if (content.size() <= client_wire::kMaxInlineBytes) {
    start_status(connection_, request_for(Op::kSet, id_, object), text_of(content),
                 std::move(done));
    return std::move(future);
  }
  auto copy = std::make_shared<std::string>(text_of(content));
  grab_async(object, Touch::kFirstTouch, [copy, done = std::move(done)](Result<WritePin> pin) {
    if (!pin) return done(pin.error());
    std::memcpy(pin->bytes().data(), copy->data(), copy->size());
    pin->put();
    done({});
  });
  return std::move(future);
}

Status SharedSet::remove(ObjectId object) const {
  return wait_for_status(connection_, request_for(Op::kRemove, id_, object));
}
Status SharedSet::flush(ObjectId object) const {
  return wait_for_status(connection_, request_for(Op::kFlush, id_, object));
}
Status SharedSet::sync() const {
  return wait_for_status(connection_, request_for(Op::kSync, id_, {}));
}
Status SharedSet::destroy() const {
  // By its id, as other programs may have made another set of this name since.
  return wait_for_status(connection_,
                         {.op = Op::kName,
                          .flag = static_cast<uint8_t>(SetNames::Verb::kDestroy),
                          .object = id_.value},
                         name_);
}

Result<SetStatistics> SharedSet::statistics() const {
  auto [done, future] = promised<Result<SetStatistics>>();
  connection_->start(request_for(Op::kStatistics, id_, {}), {},
                     [done = std::move(done)](Result<Answer> answer) {
                       KddmStatistics counted;
                       if (!answer) return done(answer.error());
                       if (answer->payload.size() != sizeof counted)
                         return done(errno_error("krgd's statistics", EPROTO));
                       std::memcpy(&counted, answer->payload.data(), sizeof counted);
                       done(SetStatistics{counted.gets, counted.grabs, counted.local_hits,
                                          counted.bytes_sent, counted.objects_here});
                     });
  return future.get();
}

std::future<Result<ReadPin>> SharedSet::get_async(ObjectId object, Touch touch) const {
  auto [granted, future] = promised<Result<ReadPin>>();
  get_async(object, touch, std::move(granted));
  return std::move(future);
}
std::future<Result<WritePin>> SharedSet::grab_async(ObjectId object, Touch touch) const {
  auto [granted, future] = promised<Result<WritePin>>();
  grab_async(object, touch, std::move(granted));
  return std::move(future);
}
std::future<Result<ReadRange>> SharedSet::get_range_async(ObjectId first, size_t count,
                                                          Touch touch) const {
  auto [granted, future] = promised<Result<ReadRange>>();
  get_range_async(first, count, touch, std::move(granted));
  return std::move(future);
}
std::future<Result<WriteRange>> SharedSet::grab_range_async(ObjectId first, size_t count,
                                                            Touch touch) const {
  auto [granted, future] = promised<Result<WriteRange>>();
  grab_range_async(first, count, touch, std::move(granted));
  return std::move(future);
}
std::future<Status> SharedSet::remove_async(ObjectId object) const {
  auto [done, future] = promised<Status>();
  remove_async(object, std::move(done));
  return std::move(future);
}

void SharedSet::get_async(ObjectId object, Touch touch, Granted<ReadPin> granted) const {
  start_pin<ReadPin>(connection_, object_bytes_, request_for(Op::kGet, id_, object, touch),
                     std::move(granted));
}
void SharedSet::grab_async(ObjectId object, Touch touch, Granted<WritePin> granted) const {
  start_pin<WritePin>(connection_, object_bytes_, request_for(Op::kGrab, id_, object, touch),
                      std::move(granted));
}
void SharedSet::get_range_async(ObjectId first, size_t count, Touch touch,
                                Granted<ReadRange> granted) const {
  start_pin<ReadRange>(connection_, object_bytes_,
                       request_for_range(Op::kGetRange, id_, first, count, touch),
                       std::move(granted));
}
void SharedSet::grab_range_async(ObjectId first, size_t count, Touch touch,
                                 Granted<WriteRange> granted) const {
  start_pin<WriteRange>(connection_, object_bytes_,
                        request_for_range(Op::kGrabRange, id_, first, count, touch),
                        std::move(granted));
}
void SharedSet::remove_async(ObjectId object, std::function<void(Status)> done) const {
  start_status(connection_, request_for(Op::kRemove, id_, object), {}, std::move(done));
}

}  // namespace krg
