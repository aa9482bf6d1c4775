# Against a server of our own on loopback that misbehaves on request.
add_library(net_server_lib STATIC net/server.c)
target_link_libraries(net_server_lib PUBLIC em_flags Threads::Threads)
target_include_directories(net_server_lib PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/net)
add_executable(net_server net/main.c)
target_link_libraries(net_server PRIVATE net_server_lib)

# em_net_test(file label…): tests/net/test_<file>.c as one CTest entry.
function(em_net_test file)
  add_executable(test_net_${file} net/test_${file}.c)
  target_link_libraries(test_net_${file} PRIVATE em_core net_server_lib PkgConfig::CMOCKA)
  add_test(NAME net.${file} COMMAND test_net_${file})
  set_tests_properties(net.${file} PROPERTIES LABELS "net;${ARGN}" TIMEOUT 300)
endfunction()
em_net_test(fetch fault)
em_net_test(ssrf)
em_net_test(chaos)
em_net_test(upload)
em_net_test(tls)
