// A responder: takes requests and answers them. The theory: mailbox.cpp.
#pragma once

#include <cstdint>

#include "framegate/shm.h"
#include "mail.hpp"

namespace framegate::impl {

class Responder : public Correspondent {
  public:
    static fg_status open(Topic& topic, const fg_responder_options& options, Responder** out);
    fg_status take(std::int64_t timeout_ns, fg_request* out);
    fg_status reply(fg_request* request, fg_loan* loan, const fg_publish_info& info);
    fg_status fail_request(fg_request* request, const char* text, std::size_t text_bytes);
    void drop(fg_request* request);
    void close();

  private:
    struct Duty {          // a request that waits for its answer
        std::uint64_t id;  // ticket of its letter; 0: unused
        std::uint64_t call;
        MailAddress caller;
    };

    static const Kind kKind;
    static void destroy(Handle& handle);

    Responder() : Correspondent(kKind) {}
    fg_status look(fg_request* out);
    Duty* find(std::uint64_t id);
    void end(Duty* duty, fg_request* request);
    fg_status answer_with_text(const Duty& duty, const char* text, std::size_t text_bytes);

    Duty* duties_ = nullptr;  // requests_max_ of them
    std::uint32_t requests_max_ = 0;
    std::uint32_t requests_ = 0;
    std::uint64_t received_ = 0;
    std::uint64_t late_ = 0;
};

}  // namespace framegate::impl
