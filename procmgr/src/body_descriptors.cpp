// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/body_descriptors.h"

namespace krg {
namespace {

class Real : public BodyDescriptors {
 public:
  explicit Real(Descriptors& descriptors) : descriptors_(descriptors) {}
  void export_fds(pid_t pid, WhichFds which,
                  std::function<void(Result<std::vector<ExportedFd>>)> done) override {
    descriptors_.export_fds(pid, which, std::move(done));
  }
  void cancel_export(const std::vector<ExportedFd>& fds) override {
    descriptors_.cancel_export(fds);
  }
  void resume_sockets(const std::vector<ExportedFd>& fds) override {
    descriptors_.resume_sockets(fds);
  }
  void import_fds(pid_t pid, std::vector<ExportedFd> fds,
                  std::function<void(Result<std::vector<ImportedFd>>)> done) override {
    descriptors_.import_fds(pid, std::move(fds), std::move(done));
  }
  void body_ended(pid_t pid, std::function<void()> done) override {
    descriptors_.body_ended(pid, std::move(done));
  }

 private:
  Descriptors& descriptors_;
};

}  // namespace

std::unique_ptr<BodyDescriptors> body_descriptors_of(Descriptors& descriptors) {
  return std::make_unique<Real>(descriptors);
}

}  // namespace krg
