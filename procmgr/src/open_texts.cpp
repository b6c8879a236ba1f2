// SPDX-License-Identifier: GPL-2.0-or-later
#include "open_texts.h"

#include <chrono>

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;

// A text made at open(2) serves the first read unless the program waited longer than this.
constexpr auto kMaxAge = std::chrono::milliseconds(20);

std::string piece_of(const std::string& text, uint64_t offset, size_t size) {
  return offset < text.size() ? text.substr(offset, size) : std::string();
}

}  // namespace

struct OpenTexts::Text {
  Source source;
  Sink sink;
  std::string text;
  Clock::time_point made;
  bool is_new = false;  // not read from the start yet

  void set(std::string made_text) {
    text = std::move(made_text);
    made = Clock::now();
  }
};

void OpenTexts::open(Source source, bool at_once, Sink sink, FsReply<FsOpened> reply) {
  uint64_t handle = next_handle_++;
  auto text = std::make_shared<Text>();
  text->source = std::move(source);
  text->sink = std::move(sink);
  if (!at_once) {
    texts_->emplace(handle, std::move(text));
    return reply(FsOpened{.handle = handle});
  }
  auto answer = std::make_shared<FsReply<FsOpened>>(std::move(reply));
  text->source([weak = std::weak_ptr(texts_), handle, text, answer](Result<std::string> made) {
    auto texts = weak.lock();
    if (!made || !texts) return (*answer)(made ? errno_error("closed", EIO) : made.error());
    text->set(std::move(*made));
    text->is_new = true;
    texts->emplace(handle, text);
    (*answer)(FsOpened{.handle = handle});
  });
}

void OpenTexts::read(uint64_t handle, uint64_t offset, size_t size, FsReply<std::string> reply) {
  auto found = texts_->find(handle);
  if (found == texts_->end()) return reply(errno_error("read", EBADF));
  std::shared_ptr<Text> text = found->second;
  bool serves = offset > 0 || (text->is_new && Clock::now() - text->made <= kMaxAge);
  if (offset == 0) text->is_new = false;
  if (serves) return reply(piece_of(text->text, offset, size));
  auto answer = std::make_shared<FsReply<std::string>>(std::move(reply));
  text->source([text, size, answer](Result<std::string> made) {
    if (!made) return (*answer)(made.error());
    text->set(std::move(*made));
    (*answer)(piece_of(text->text, 0, size));
  });
}

void OpenTexts::write(uint64_t handle, std::string_view data, FsReply<size_t> reply) {
  auto found = texts_->find(handle);
  if (found == texts_->end()) return reply(errno_error("write", EBADF));
  if (!found->second->sink) return reply(errno_error("write", EACCES));
  found->second->sink(data, std::move(reply));
}

void OpenTexts::release(uint64_t handle) {
  texts_->erase(handle);
}

}  // namespace krg
