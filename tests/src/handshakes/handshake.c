/*
 * One side of GSSAPI handshakes with mutual authentication, by the C library of the system.
 *
 *     handshake initiate | handshake accept
 *
 * It works off what comes in on its standard input and answers each with one message on its standard output, until
 * the input ends. A message is its length in 4 bytes, big endian, one byte that says what it is, and the rest:
 *
 *     in   S ccache 0 service@host   begin a handshake with this service and the tickets of this ccache (initiate)
 *          T token                   go on; at an acceptor without a handshake under way: begin
 *     out  T token                   to the other side, which must answer
 *          D token                   this side is done; the token, unless empty, is for the other side
 *          E text                    it failed; what the library says of it
 *
 * An acceptor names no credential, so the library opens the keytab anew at each handshake, as a server does.
 */
#include <arpa/inet.h>
#include <gssapi/gssapi.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define MOST 65536

static gss_ctx_id_t context = GSS_C_NO_CONTEXT;
static gss_name_t target = GSS_C_NO_NAME;

static void say(char kind, const void *rest, size_t length) {
    uint32_t size = htonl((uint32_t)length + 1);
    fwrite(&size, 4, 1, stdout);
    fputc(kind, stdout);
    fwrite(rest, 1, length, stdout);
    fflush(stdout);
}

static void forget(void) {
    OM_uint32 minor;
    gss_delete_sec_context(&minor, &context, GSS_C_NO_BUFFER);
}

static size_t describe(char *text, size_t room, OM_uint32 code, int kind) {
    OM_uint32 minor, more = 0;
    gss_buffer_desc said;
    size_t used = 0;
    do {
        if (GSS_ERROR(gss_display_status(&minor, code, kind, GSS_C_NO_OID, &more, &said)))
            return used;
        if (used + said.length + 2 < room)
            used += (size_t)snprintf(text + used, room - used, "%.*s; ", (int)said.length, (char *)said.value);
        gss_release_buffer(&minor, &said);
    } while (more);
    return used;
}

static void fail(OM_uint32 major, OM_uint32 minor) {
    char text[2048];
    size_t used = describe(text, sizeof text / 2, major, GSS_C_GSS_CODE);
    used += describe(text + used, sizeof text - used, minor, GSS_C_MECH_CODE);
    forget();
    say('E', text, used);
}

static void answer(OM_uint32 major, OM_uint32 minor, gss_buffer_t token) {
    OM_uint32 ignored;
    if (GSS_ERROR(major)) {
        fail(major, minor);
    } else {
        say(major == GSS_S_CONTINUE_NEEDED ? 'T' : 'D', token->value, token->length);
        if (major == GSS_S_COMPLETE)
            forget();
    }
    gss_release_buffer(&ignored, token);
}

static void initiate(gss_buffer_t in) {
    gss_buffer_desc out = GSS_C_EMPTY_BUFFER;
    OM_uint32 minor, flags = 0;
    OM_uint32 major = gss_init_sec_context(&minor, GSS_C_NO_CREDENTIAL, &context, target, GSS_C_NO_OID,
                                           GSS_C_MUTUAL_FLAG | GSS_C_REPLAY_FLAG | GSS_C_INTEG_FLAG, 0,
                                           GSS_C_NO_CHANNEL_BINDINGS, in, NULL, &out, &flags, NULL);
    answer(major, minor, &out);
}

static void start(char *text, size_t length) {
    char *service = memchr(text, 0, length);
    OM_uint32 major, minor;
    gss_buffer_desc name;
    forget();
    gss_release_name(&minor, &target);
    if (service == NULL) {
        say('E', "no service", 10);
        return;
    }
    setenv("KRB5CCNAME", text, 1);
    name.value = ++service;
    name.length = length - (size_t)(service - text);
    major = gss_import_name(&minor, &name, GSS_C_NT_HOSTBASED_SERVICE, &target);
    if (GSS_ERROR(major))
        fail(major, minor);
    else
        initiate(GSS_C_NO_BUFFER);
}

static void accept_token(gss_buffer_t in) {
    gss_buffer_desc out = GSS_C_EMPTY_BUFFER;
    OM_uint32 minor;
    OM_uint32 major = gss_accept_sec_context(&minor, &context, GSS_C_NO_CREDENTIAL, in, GSS_C_NO_CHANNEL_BINDINGS,
                                             NULL, NULL, &out, NULL, NULL, NULL);
    answer(major, minor, &out);
}

int main(int count, char **words) {
    static char text[MOST];
    uint32_t size;
    int accepts = count == 2 && strcmp(words[1], "accept") == 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* also while it is stopped; a change of user has taken away an older one */
    while (fread(&size, 4, 1, stdin) == 1) {
        size = ntohl(size);
        if (size == 0 || size > MOST || fread(text, 1, size, stdin) != size)
            return 1;
        gss_buffer_desc token = {size - 1, text + 1};
        if (text[0] == 'S' && !accepts)
            start(text + 1, size - 1);
        else if (accepts)
            accept_token(&token);
        else
            initiate(&token);
    }
    return 0;
}
