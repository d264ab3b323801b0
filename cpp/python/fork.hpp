// Handles belong to the process that opened them: a forked child shares neither the lock that keeps
// a participant alive nor (by MADV_DONTFORK) the mapping, so touching a slot there would fault.
// Every object remembers the generation it was made in; the child's is one higher.
#pragma once

namespace framegate::py {

unsigned fork_generation() noexcept;
void install_fork_handler();

}  // namespace framegate::py
