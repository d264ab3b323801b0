# Builds framegate._shm (nanobind) and framegate._http (pyo3, by maturin) and installs both beside the Python sources.
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module)
find_package(nanobind CONFIG REQUIRED)

file(GLOB _shm_module_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/cpp/python/*.cpp")
nanobind_add_module(_shm NB_STATIC FREE_THREADED ${_shm_module_sources})
target_link_libraries(_shm PRIVATE framegate_shm)
target_compile_definitions(_shm PRIVATE FRAMEGATE_VERSION="${PROJECT_VERSION}")

set(FRAMEGATE_CARGO_PROFILE release CACHE STRING "cargo profile of the Rust module")
set(FRAMEGATE_CARGO_TARGET_DIR "${CMAKE_CURRENT_SOURCE_DIR}/target" CACHE PATH "cargo target directory of the Rust module")
add_custom_target(_http ALL
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/cmake/build_http.py"
          --profile ${FRAMEGATE_CARGO_PROFILE} --target-dir "${FRAMEGATE_CARGO_TARGET_DIR}"
          --out "${CMAKE_CURRENT_BINARY_DIR}/http"
  BYPRODUCTS "${CMAKE_CURRENT_BINARY_DIR}/http"
  USES_TERMINAL VERBATIM)

# The live page. A source distribution carries it built; elsewhere npm builds it.
set(_live "${CMAKE_CURRENT_BINARY_DIR}/live")
if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/PKG-INFO" AND EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/python/framegate/live/live.js")
  set(_live "${CMAKE_CURRENT_SOURCE_DIR}/python/framegate/live")
else()
  find_program(FRAMEGATE_NPM npm)
  if(NOT FRAMEGATE_NPM)
    message(FATAL_ERROR "npm was not found: it builds the live page (web/). Install Node.js 18 or newer, or build from a source distribution.")
  endif()
  set(_web "${CMAKE_CURRENT_SOURCE_DIR}/web")
  file(GLOB _web_sources CONFIGURE_DEPENDS "${_web}/src/*")
  add_custom_command(OUTPUT "${_web}/node_modules/.package-lock.json"
    COMMAND "${FRAMEGATE_NPM}" ci --silent --no-audit --no-fund
    DEPENDS "${_web}/package.json" "${_web}/package-lock.json"
    WORKING_DIRECTORY "${_web}" VERBATIM)
  add_custom_command(OUTPUT "${_live}/live.js"
    COMMAND "${FRAMEGATE_NPM}" run --silent build -- "${_live}"
    DEPENDS ${_web_sources} "${_web}/build.mjs" "${_web}/node_modules/.package-lock.json"
    WORKING_DIRECTORY "${_web}" VERBATIM)
  add_custom_target(live_page ALL DEPENDS "${_live}/live.js")
endif()

if(SKBUILD_STATE STREQUAL "editable")
  # Development: modules beside the sources and a plain .pth that every tool and IDE understands.
  set(_destination "${CMAKE_CURRENT_SOURCE_DIR}/python/framegate")
  file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/framegate_development.pth" "${CMAKE_CURRENT_SOURCE_DIR}/python\n")
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/framegate_development.pth" DESTINATION .)
else()
  set(_destination framegate)
endif()
install(TARGETS _shm LIBRARY DESTINATION "${_destination}")
install(DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/http/" DESTINATION "${_destination}")
install(DIRECTORY "${_live}/" DESTINATION "${_destination}/live")
if(NOT SKBUILD_STATE STREQUAL "editable")
  # `platform docs` of a development build reads them where they are.
  file(GLOB _pages CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/docs/*.md")
  install(FILES ${_pages} DESTINATION "${_destination}/docs")
  foreach(_folder guide reference)
    install(DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/docs/${_folder}" DESTINATION "${_destination}/docs" FILES_MATCHING PATTERN "*.md")
  endforeach()
endif()

# For Rust programs: the crate, which links the static library below; `platform topic cargo-dir` prints where.
configure_file("${CMAKE_CURRENT_SOURCE_DIR}/rust/shm/wheel/Cargo.toml.in" "${CMAKE_CURRENT_BINARY_DIR}/crate/Cargo.toml" @ONLY)
set(_crate "${_destination}/rust/framegate-shm")
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/crate/Cargo.toml" "${CMAKE_CURRENT_SOURCE_DIR}/rust/shm/wheel/build.rs"
  DESTINATION "${_crate}")
install(DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/rust/shm/src" DESTINATION "${_crate}")

# For C++ and C programs: headers, the static library and a package for find_package(framegate);
# `platform topic cmake-dir` prints where.
include(CMakePackageConfigHelpers)
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/framegateConfigVersion.cmake"
  VERSION "${PROJECT_VERSION}" COMPATIBILITY SameMinorVersion)
install(TARGETS framegate_shm ARCHIVE DESTINATION "${_destination}/lib")
install(DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/cpp/include/framegate" DESTINATION "${_destination}/include")
configure_file("${CMAKE_CURRENT_SOURCE_DIR}/cmake/framegate.pc.in" "${CMAKE_CURRENT_BINARY_DIR}/framegate.pc" @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/framegate.pc" DESTINATION "${_destination}/lib/pkgconfig")
install(FILES "${CMAKE_CURRENT_SOURCE_DIR}/cmake/framegateConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/framegateConfigVersion.cmake"
  DESTINATION "${_destination}/lib/cmake/framegate")
