# Helpers that give every folder's target the same language level, warnings and sanitizers.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
find_program(KRG_CCACHE ccache)
if(KRG_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${KRG_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${KRG_CCACHE})
endif()

add_library(krg_options INTERFACE)
target_compile_options(krg_options INTERFACE -Wall -Wextra $<$<BOOL:${KRG_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 warns of "text" + std::string at -O3 (GCC bug 105651, mended in 13).
  target_compile_options(krg_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(CMAKE_UNITY_BUILD)
  # Only to build faster, for tests: a tool that is linked from such a library needs all that its sources' neighbours need.
  # A type of a source's own namespace within a type of that source, which looks like a header's where the sources are joined.
  target_compile_options(krg_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
endif()
if(KRG_SANITIZE)
  # Without the checks of each pointer for null (the first page faults) and alignment (x86-64 asks for none): a third of
  # what a compilation takes.
  target_compile_options(krg_options INTERFACE -fsanitize=${KRG_SANITIZE} -fno-sanitize=null,alignment -fno-omit-frame-pointer)
  target_link_options(krg_options INTERFACE -fsanitize=${KRG_SANITIZE})
endif()

# Headers of the C++ library that nearly every source reads, read once: a quarter of what a first build takes. Off unless
# asked for: sources then still name what they need, and ccache gives back what another working tree compiled.
option(KRG_PRECOMPILE "Precompile the C++ library's headers (a faster first build)" OFF)
if(KRG_PRECOMPILE AND CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 warns of bounds of the library's own containers when it has their headers precompiled.
  target_compile_options(krg_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread>)
endif()
set(KRG_PRECOMPILED <algorithm> <array> <chrono> <cstring> <deque> <filesystem> <fstream> <functional> <map> <memory> <optional>
  <set> <span> <string> <string_view> <thread> <tuple> <unordered_map> <utility> <vector>)
# krg_precompile(TARGET KIND): for targets of one KIND, library (-fPIC) or test (-fPIE, with GoogleTest). What they define
# besides does no harm; what the precompiled headers were read with must be defined everywhere, so they have none.
function(krg_precompile target kind)
  if(NOT KRG_PRECOMPILE)
    return()
  endif()
  if(NOT TARGET krg_precompiled_${kind})
    file(WRITE ${PROJECT_BINARY_DIR}/precompiled_${kind}.cpp "")
    if(kind STREQUAL library)
      add_library(krg_precompiled_library STATIC ${PROJECT_BINARY_DIR}/precompiled_library.cpp)
      target_precompile_headers(krg_precompiled_library PRIVATE ${KRG_PRECOMPILED})
    else()
      add_executable(krg_precompiled_test ${PROJECT_BINARY_DIR}/precompiled_test.cpp)
      target_precompile_headers(krg_precompiled_test PRIVATE ${KRG_PRECOMPILED} <gtest/gtest.h>)
      target_link_libraries(krg_precompiled_test PRIVATE GTest::gtest GTest::gtest_main)
    endif()
    target_link_libraries(krg_precompiled_${kind} PRIVATE krg_options)
  endif()
  target_precompile_headers(${target} REUSE_FROM krg_precompiled_${kind})
endfunction()

# krg_library(NAME SOURCES ... [PUBLIC libs...] [PRIVATE libs...]): the one target of a folder, krg::NAME.
function(krg_library name)
  cmake_parse_arguments(A "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(krg_${name} STATIC ${A_SOURCES})
  add_library(krg::${name} ALIAS krg_${name})
  set_target_properties(krg_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(krg_${name}
    PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>
    PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_compile_features(krg_${name} PUBLIC cxx_std_20)
  target_link_libraries(krg_${name} PUBLIC ${A_PUBLIC} PRIVATE ${A_PRIVATE} $<BUILD_INTERFACE:krg_options>)
  krg_precompile(krg_${name} library)
endfunction()

# krg_program(NAME SOURCES ... LIBS ... [LIBEXEC] [FREESTANDING]): an installed executable. FREESTANDING: static,
# without C library, start files, sanitizers.
function(krg_program name)
  cmake_parse_arguments(A "LIBEXEC;FREESTANDING" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  if(A_FREESTANDING)
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${name} PRIVATE -Wall -Wextra $<$<BOOL:${KRG_WERROR}>:-Werror> -Os -g0 -ffreestanding
      -fno-pie -fno-exceptions -fno-rtti -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none)
    target_link_options(${name} PRIVATE -nostdlib -static -no-pie -Wl,-z,noseparate-code -Wl,-z,noexecstack
      -Wl,--build-id=none -s)
  else()
    target_link_libraries(${name} PRIVATE ${A_LIBS} krg_options)
  endif()
  target_compile_definitions(${name} PRIVATE KRG_VERSION="${PROJECT_VERSION}")
  if(A_LIBEXEC)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/libexec/kerrighed)
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/kerrighed)
  else()
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endfunction()

# krg_alias(NAME PROGRAM): a second name of an installed program (the spelling of another release of the original).
function(krg_alias name program)
  add_custom_command(TARGET ${program} POST_BUILD
    COMMAND ${CMAKE_COMMAND} -E create_symlink ${program} ${PROJECT_BINARY_DIR}/bin/${name})
  install(FILES ${PROJECT_BINARY_DIR}/bin/${name} DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

# Builds the programs of all tests of label unit, and no more: what the sanitizer run needs.
add_custom_target(unit_tests)

# krg_unit_test(NAME SOURCES ... LIBS ... [LABELS ...] [TIMEOUT s]): a GoogleTest binary that may include the
# folder's private headers, run as one ctest entry (label unit unless told otherwise).
function(krg_unit_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  if(NOT KRG_BUILD_TESTS)
    # The target exists all the same, never built, so that callers may set its properties.
    add_executable(${name} EXCLUDE_FROM_ALL ${A_SOURCES})
    return()
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 60)
  endif()
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_link_libraries(${name} PRIVATE ${A_LIBS} GTest::gtest GTest::gtest_main krg_options)
  krg_precompile(${name} test)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/test-bin)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}")
  if(unit IN_LIST A_LABELS)
    add_dependencies(unit_tests ${name})
  endif()
endfunction()
