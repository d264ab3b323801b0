// A caller: asks responders and waits for their answers. The theory: mailbox.cpp.
#pragma once

#include <cstdint>

#include "framegate/shm.h"
#include "mail.hpp"

namespace framegate::impl {

class Caller : public Correspondent {
  public:
    static fg_status open(Topic& topic, const fg_caller_options& options, Caller** out);
    fg_status call(fg_loan* loan, const fg_publish_info& info, std::int64_t timeout_ns,
                   std::uint64_t* number);
    fg_status wait(std::uint64_t number, std::int64_t timeout_ns, fg_frame* reply);
    fg_status cancel(std::uint64_t number);
    void close();

  private:
    enum class State : std::uint32_t {
        kUnused,
        kWaiting,
        kAnswered,
        kAbandoned,  // nobody waits; counted until the answer comes or the responder goes
    };
    struct Pending {
        State state;
        std::uint32_t slot;  // of the request
        std::uint32_t generation;
        std::uint64_t number;
        std::uint64_t deadline_ns;
        MailAddress responder;
        Posted posted;
        Letter answer;
    };

    static const Kind kKind;
    static void destroy(Handle& handle);
    static void make_room(Publisher& self);
    static std::uint32_t count_in_flight(const Handle& handle);

    Caller() : Correspondent(kKind) {}
    Pending* find(std::uint64_t number);
    Pending* unused();
    bool pick(const std::uint64_t* tried, MailAddress* to);
    fg_status post(fg_loan* loan, Pending* pending);
    void read_mail(std::uint64_t own);
    fg_status look(std::uint64_t number, fg_frame* reply);
    fg_status deliver(Pending* pending, fg_frame* reply);
    bool give_up(Pending* pending);
    void end(Pending* pending, State state);

    Pending* pending_ = nullptr;  // calls_max_ of them
    std::uint32_t calls_max_ = 0;
    std::uint32_t next_responder_ = 0;
    std::uint64_t calls_ = 0;
    std::uint64_t answered_ = 0;
    std::uint64_t late_ = 0;
};

}  // namespace framegate::impl
