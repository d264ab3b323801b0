# find_package(framegate) of the Python package: target framegate::shm, the shared-memory library for C and C++20.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
get_filename_component(_framegate_root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET framegate::shm)
  add_library(framegate::shm STATIC IMPORTED)
  set_target_properties(framegate::shm PROPERTIES
    IMPORTED_LOCATION "${_framegate_root}/lib/libframegate_shm.a"
    IMPORTED_LINK_INTERFACE_LANGUAGES C # needs no libstdc++
    INTERFACE_INCLUDE_DIRECTORIES "${_framegate_root}/include"
    INTERFACE_LINK_LIBRARIES Threads::Threads)
endif()
unset(_framegate_root)
