em_test(cli options unit)
target_link_libraries(test_cli_options PRIVATE em_cli)
