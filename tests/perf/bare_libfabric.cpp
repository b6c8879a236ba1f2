// SPDX-License-Identifier: GPL-2.0-or-later
#include "bare_libfabric.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_rma.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace krg::perf {
namespace {

void require(long returned, const char* what) {
  if (returned >= 0) return;
  std::fprintf(stderr, "%s: %s\n", what, fi_strerror(static_cast<int>(-returned)));
  std::exit(1);
}

}  // namespace

struct BareLibfabric::Impl {
  const MpiBoot& boot;
  fi_info* info = nullptr;
  fid_fabric* fabric = nullptr;
  fid_domain* domain = nullptr;
  fid_av* av = nullptr;
  fid_cq* cq = nullptr;
  fid_ep* ep = nullptr;
  fid_mr* mr = nullptr;
  fi_addr_t peer = FI_ADDR_UNSPEC;
  std::vector<char> exposed, local, buffer;
  uint64_t remote[2] = {};  // address and key of the peer's memory

  explicit Impl(const MpiBoot& b) : boot(b) {}
  bool measures() const { return boot.self().value == 0; }

  void open(const std::string& provider, const std::string& address, Waiting waiting) {
    fi_info* hints = fi_allocinfo();
    hints->caps = FI_MSG | FI_RMA;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    hints->fabric_attr->prov_name = strdup(provider.c_str());
    require(fi_getinfo(FI_VERSION(1, 15), address.c_str(), nullptr, FI_SOURCE, hints, &info),
            "fi_getinfo");
    fi_freeinfo(hints);
    require(fi_fabric(info->fabric_attr, &fabric, nullptr), "fi_fabric");
    require(fi_domain(fabric, info, &domain, nullptr), "fi_domain");
    fi_av_attr av_attr{};
    av_attr.type = FI_AV_TABLE;
    require(fi_av_open(domain, &av_attr, &av, nullptr), "fi_av_open");
    fi_cq_attr cq_attr{};
    cq_attr.format = FI_CQ_FORMAT_MSG;
    cq_attr.wait_obj = waiting == Waiting::kNever ? FI_WAIT_NONE : FI_WAIT_FD;
    require(fi_cq_open(domain, &cq_attr, &cq, nullptr), "fi_cq_open");
    require(fi_endpoint(domain, info, &ep, nullptr), "fi_endpoint");
    require(fi_ep_bind(ep, &av->fid, 0), "fi_ep_bind");
    require(fi_ep_bind(ep, &cq->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
    require(fi_enable(ep), "fi_enable");
  }
  void introduce(size_t bytes) {
    exposed.assign(bytes, 'x');
    local.resize(bytes);
    buffer.resize(4096);
    require(fi_mr_reg(domain, exposed.data(), bytes, FI_REMOTE_READ, 0, 1, 0, &mr, nullptr),
            "fi_mr_reg");
    char name[256];
    size_t length = sizeof name;
    require(fi_getname(&ep->fid, name, &length), "fi_getname");
    uint64_t mine[2] = {info->domain_attr->mr_mode & FI_MR_VIRT_ADDR
                            ? reinterpret_cast<uint64_t>(exposed.data())
                            : 0,
                        fi_mr_key(mr)};
    std::string card(reinterpret_cast<char*>(mine), sizeof mine);
    auto cards = boot.allgather(card + std::string(name, length));
    const std::string& theirs = (*cards)[1 - boot.self().value];
    std::memcpy(remote, theirs.data(), sizeof remote);
    require(fi_av_insert(av, theirs.data() + sizeof remote, 1, &peer, 0, nullptr) - 1,
            "fi_av_insert");
  }

  template <class Post>
  void post(Post once) {
    long returned;
    while ((returned = once()) == -FI_EAGAIN) fi_cq_read(cq, nullptr, 0);
    require(returned, "post");
  }
  void await(unsigned completions) {
    for (unsigned seen = 0; seen < completions;) {
      fi_cq_msg_entry entries[4];
      long count = fi_cq_read(cq, entries, 4);
      if (count > 0)
        seen += static_cast<unsigned>(count);
      else if (count != -FI_EAGAIN)
        require(count, "fi_cq_read");
    }
  }
  void receive() {
    post([&] {
      return fi_recv(ep, buffer.data(), buffer.size(), nullptr, FI_ADDR_UNSPEC, nullptr);
    });
  }
  void send(size_t bytes) {
    post([&] { return fi_send(ep, local.data(), bytes, nullptr, peer, nullptr); });
  }

  void ping_pong(const Workload& work, Samples& samples) {
    for (unsigned i = 0; i < work.round_trips; ++i) {
      const auto start = Clock::now();
      receive();
      if (!measures()) await(1);
      send(work.message_bytes);
      await(measures() ? 2 : 1);
      if (measures()) samples.add(microseconds_since(start));
    }
  }
  void gets(const Workload& work, Samples& samples) {
    if (!measures()) {  // makes progress until it is told to stop
      receive();
      return await(1);
    }
    for (unsigned i = 0; i < work.gets; ++i) {
      const auto start = Clock::now();
      post([&] {
        return fi_read(ep, local.data(), work.get_bytes, nullptr, peer, remote[0], remote[1],
                       nullptr);
      });
      await(1);
      samples.add(microseconds_since(start));
    }
    send(1);
    await(1);
  }
};

BareLibfabric::BareLibfabric(const MpiBoot& boot, const std::string& provider,
                             const std::string& address, Waiting waiting)
    : impl_(std::make_unique<Impl>(boot)) {
  impl_->open(provider, address, waiting);
}

BareLibfabric::~BareLibfabric() {
  fid_t objects[] = {&impl_->ep->fid, &impl_->mr->fid,     &impl_->cq->fid,
                     &impl_->av->fid, &impl_->domain->fid, &impl_->fabric->fid};
  for (fid_t object : objects) fi_close(object);
  fi_freeinfo(impl_->info);
}

void BareLibfabric::run(const Workload& work, Figures& figures) {
  if (impl_->exposed.empty()) impl_->introduce(work.get_bytes);
  static_cast<void>(impl_->boot.barrier());
  impl_->ping_pong(work, figures.round_trip);
  impl_->gets(work, figures.get);
}

}  // namespace krg::perf
