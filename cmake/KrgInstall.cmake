# Install the libraries' export set and the package files, so that find_package(kerrighed) works.
include(CMakePackageConfigHelpers)
install(TARGETS krg krg_runtime krg_shmem krg_client krg_procmgr EXPORT kerrighedTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY runtime/include/ shmem/include/ procmgr/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT kerrighedTargets NAMESPACE krg:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kerrighed)
configure_package_config_file(cmake/kerrighedConfig.cmake.in kerrighedConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kerrighed)
write_basic_package_version_file(kerrighedConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kerrighedConfig.cmake ${PROJECT_BINARY_DIR}/kerrighedConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kerrighed)
