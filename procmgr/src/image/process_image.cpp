// The form in which a ProcessImage travels. SPDX-License-Identifier: GPL-2.0-or-later
#include "image/process_image.h"

#include <csignal>
#include <cstring>

#include "packed_bytes.h"

namespace krg {
namespace {

constexpr uint8_t kFormatVersion = 3;
constexpr uint32_t kMostParts = 1u << 20;  // of anything: what is malformed must not take memory

// Each part has one list of its fields, which both ways take: `bytes` is a Writing or a Reading.
class Writing {
 public:
  template <class T>
  void operator()(const T& value) {
    out.put(value);
  }
  void operator()(const std::string& text) { out.put_string(text); }
  template <class T>
  uint32_t size(const std::vector<T>& list) {
    const auto count = static_cast<uint32_t>(list.size());
    out.put(count);
    return count;
  }
  PackedWriter out;
};

class Reading {
 public:
  explicit Reading(std::string_view bytes) : in(bytes) {}
  template <class T>
  void operator()(T& value) {
    value = in.get<T>();
  }
  void operator()(std::string& text) { text = in.get_string(); }
  template <class T>
  uint32_t size(std::vector<T>& list) {
    const auto count = in.get<uint32_t>();
    if (count > kMostParts) {
      is_malformed = true;
      return 0;
    }
    list.reserve(std::min(count, 4096u));
    return count;
  }
  bool ok() const { return in.ok() && !is_malformed; }
  PackedReader in;
  bool is_malformed = false;
};

template <class T, class Each>
void list(Writing& bytes, const std::vector<T>& all, Each each) {
  bytes.size(all);
  for (const T& one : all) each(one);
}
template <class T, class Each>
void list(Reading& bytes, std::vector<T>& all, Each each) {
  const uint32_t count = bytes.size(all);
  for (uint32_t i = 0; i < count && bytes.ok(); ++i) each(all.emplace_back());
}

void fields(auto& bytes, auto& thread, const ImageThread*) {
  bytes(thread.tid);
  bytes(thread.registers);
  bytes(thread.extended_state);
  bytes(thread.signal_mask);
  bytes(thread.alternate_stack);
  bytes(thread.alternate_stack_bytes);
  bytes(thread.alternate_stack_flags);
  bytes(thread.nice);
  bytes(thread.policy);
  bytes(thread.realtime_priority);
  bytes(thread.robust_list);
  bytes(thread.robust_list_bytes);
  bytes(thread.tid_address);
  bytes(thread.rseq);
  bytes(thread.rseq_bytes);
  bytes(thread.rseq_signature);
  bytes(thread.name);
  list(bytes, thread.processors, [&](auto& place) { bytes(place); });
  bytes(thread.counter_access);
  bytes(thread.memory_errors);
  bytes(thread.parent_end_signal);
  bytes(thread.speculation);
  bytes(thread.sleep_left_ns);
  list(bytes, thread.pending, [&](auto& signal) { bytes(signal.info); });
}

void fields(auto& bytes, auto& mapping, const ImageMapping*) {
  bytes(mapping.start);
  bytes(mapping.bytes);
  bytes(mapping.kind);
  bytes(mapping.protection);
  bytes(mapping.advice);
  bytes(mapping.file);
  bytes(mapping.offset);
  bytes(mapping.shared_file);
  bytes(mapping.name);
}

void fields(auto& bytes, auto& image, const ProcessImage*) {
  bytes(image.dumpable);
  bytes(image.is_subreaper);
  bytes(image.no_huge_pages);
  bytes(image.merges_pages);
  bytes(image.no_new_code);
  bytes(image.stop_signal);
  bytes(image.layout);
  bytes(image.auxv);
  bytes(image.vdso);
  bytes(image.interval_timers);
  list(bytes, image.files, [&](auto& file) {
    bytes(file.path);
    bytes(file.bytes);
    bytes(file.modified_ns);
  });
  list(bytes, image.mappings,
       [&](auto& mapping) { fields(bytes, mapping, static_cast<const ImageMapping*>(nullptr)); });
  list(bytes, image.signal_actions, [&](auto& action) { bytes(action); });
  list(bytes, image.pending, [&](auto& signal) { bytes(signal.info); });
  list(bytes, image.timers, [&](auto& timer) { bytes(timer); });
  list(bytes, image.threads,
       [&](auto& thread) { fields(bytes, thread, static_cast<const ImageThread*>(nullptr)); });
}

bool is_consistent(const ProcessImage& image) {
  if (image.threads.empty() || image.files.empty()) return false;
  for (const ImageMapping& mapping : image.mappings)
    if (mapping.kind == ImageMapping::Kind::kFile && mapping.file >= image.files.size())
      return false;
  return true;
}

}  // namespace

int ImageSignal::number() const {
  int number;
  memcpy(&number, info.data(), sizeof number);  // si_signo comes first
  return number;
}

std::string ProcessImage::serialize() const {
  Writing bytes;
  bytes(kFormatVersion);
  bytes(spec.serialize());
  fields(bytes, *this, static_cast<const ProcessImage*>(nullptr));
  return bytes.out.take();
}

Result<ProcessImage> ProcessImage::parse(std::string_view text) {
  const Error malformed = errno_error("process image", EBADMSG);
  Reading bytes(text);
  uint8_t version = 0;
  bytes(version);
  if (version != kFormatVersion) return malformed;
  std::string spec_bytes;
  bytes(spec_bytes);
  auto spec = ExecSpec::parse(spec_bytes);
  if (!spec) return malformed;
  ProcessImage image;
  image.spec = std::move(*spec);
  fields(bytes, image, static_cast<const ProcessImage*>(nullptr));
  if (!bytes.ok() || !bytes.in.at_end() || !is_consistent(image)) return malformed;
  return image;
}

}  // namespace krg
