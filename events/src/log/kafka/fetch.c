/* Keeps librdkafka from using a newer version of the Fetch request than 15.
 *
 * From version 16 on, a broker may send the new leaders of partitions with an error (KIP-951). If
 * some of the partitions have no leader, for example while a broker starts, librdkafka counts these
 * partitions but does not fill in their entries (`rd_kafka_handle_Fetch_metadata_update`). It then
 * takes uninitialised memory for the numbers of partitions and brokers and writes to memory by
 * them: the process dies or its memory is damaged.
 * https://github.com/confluentinc/librdkafka/issues/5280, open as of 2.14. Without that part of the
 * response the library asks for the leaders itself, one request later.
 *
 * The linker replaces the library's function with this one (`--wrap`, see `events/build.rs`). */

#include <stdint.h>

enum { FETCH = 1, LAST_WITHOUT_LEADERS = 15 };

int16_t rd_kafka_broker_ApiVersion_supported0(void *broker, int16_t api, int16_t oldest,
                                              int16_t newest, int *features, int lock);

int16_t __wrap_rd_kafka_broker_ApiVersion_supported(void *broker, int16_t api, int16_t oldest,
                                                    int16_t newest, int *features) {
    if (api == FETCH && newest > LAST_WITHOUT_LEADERS)
        newest = LAST_WITHOUT_LEADERS;
    return rd_kafka_broker_ApiVersion_supported0(broker, api, oldest, newest, features, 1);
}
